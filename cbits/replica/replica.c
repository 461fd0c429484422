/* One replica: the thread that owns its vCPU, and KVM_RUN up to an exit. */
#include "replica/replica.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "assertion.h"
#include "engine.h"
#include "host.h"
#include "replica/clock.h"
#include "replica/inner.h"
#include "replica/limit.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"
#include "vcpu/tsc.h"

#define NS_PER_S 1000000000ull
#define KICK_SIGNAL (SIGRTMIN + 4)
#define KICK_PERIOD_NS 5000000
#define KICK_SPREAD_NS 2000 /* a kick that comes so much earlier or later is as good */

/* Whom a kick of this thread stops: the replica that runs on it. Two take turns on one thread under sequential. */
static __thread struct dwc_replica *kicked;

/* What this thread was before it took over its first replica. It is so again when it has given up the last one, in whatever order. */
static __thread struct {
	unsigned replicas;
	cpu_set_t cpus;
	sigset_t signals;
} before_owning;

/* immediate_exit also ends a KVM_RUN that is entered only after the signal. */
static void on_kick(int signal)
{
	(void)signal;
	if (kicked)
		kicked->run->immediate_exit = 1;
}

int dwc_install_kick(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = on_kick;
	return sigaction(KICK_SIGNAL, &action, NULL) || sigaction(DWC_OVERFLOW_SIGNAL, &action, NULL) ? -errno : 0;
}

/* Let the next kick of the replica's thread come at `ns`, and then periodically again; or leave the one that comes by then, but not
 * before `earliest`. Times are those of dwc_now_ns(). */
static int kick_at(struct dwc_replica *r, uint64_t ns, uint64_t earliest)
{
	struct itimerspec when = { { 0, KICK_PERIOD_NS }, { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) } };
	enum dwc_activity before;
	int err;

	if (r->on->next_kick_ns > earliest && r->on->next_kick_ns < ns + KICK_SPREAD_NS)
		return 0;
	before = dwc_enter(r, DWC_AT_COUNTER);
	r->on->next_kick_ns = ns;
	err = timer_settime(r->on->timer, TIMER_ABSTIME, &when, NULL) ? -errno : 0;
	dwc_leave(r, before);
	return err;
}

/* Before an entry: let a kick come when the guest must be left, be it for the TSC's tick, because its slice is over by time, or at
 * the limit (0: none). What takes longer than the period is found by periodic kicks. A slice's kick is a little early for the
 * next short elements, and costs them no system call. */
static int kick_in_time(struct dwc_replica *r, uint64_t limit_ns)
{
	uint64_t now = r->started_ns > r->ended_ns ? r->started_ns : r->ended_ns, at = r->leave_ns, slice_over = r->started_ns + r->most_ns;

	if (limit_ns && limit_ns < KICK_PERIOD_NS && r->started_ns + limit_ns < at)
		at = r->started_ns + limit_ns;
	if (r->most_ns && slice_over > now && slice_over < now + KICK_PERIOD_NS && slice_over < at)
		return kick_at(r, slice_over, now == r->started_ns ? now + r->most_ns * 2 / 3 : now);
	if (at == UINT64_MAX)
		return 0;
	return kick_at(r, at, at - KICK_SPREAD_NS > now ? at - KICK_SPREAD_NS : now);
}

/* Bind the calling thread, which owns the vCPU, to the replica's CPU. */
int dwc_replica_pin(struct dwc_replica *r)
{
	cpu_set_t cpus;

	if (r->cpu < 0)
		return 0;
	CPU_ZERO(&cpus);
	CPU_SET(r->cpu, &cpus);
	return sched_setaffinity(0, sizeof cpus, &cpus) ? -errno : 0;
}

/* A periodic kick costs a fault-free element no system call, while a timer armed for each element would cost two. */
static int start_kicks(struct dwc_replica *r)
{
	struct sigevent event;

	memset(&event, 0, sizeof event);
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = KICK_SIGNAL;
	event._sigev_un._tid = r->tid;
	if (timer_create(CLOCK_MONOTONIC, &event, &r->own.timer))
		return -errno;
	r->own.has_timer = 1;
	r->own.next_kick_ns = 0;
	return kick_at(r, dwc_now_ns() + KICK_PERIOD_NS, 0);
}

/* The counterpart of own(), on the same thread. */
static void disown(struct dwc_replica *r)
{
	if (r->own.has_timer)
		timer_delete(r->own.timer);
	r->own.has_timer = r->tid = 0;
	dwc_counter_close(r);
	if (kicked && kicked->engine == r->engine) /* this one, or the other one that took turns with it */
		kicked = NULL;
	if (--before_owning.replicas)
		return;
	sched_setaffinity(0, sizeof before_owning.cpus, &before_owning.cpus);
	pthread_sigmask(SIG_SETMASK, &before_owning.signals, NULL);
}

/* Take over the vCPU, on the thread that will own it. After an error nothing of it is left. */
static int own(struct dwc_replica *r)
{
	sigset_t set;
	int err;

	if (!before_owning.replicas) {
		if (sched_getaffinity(0, sizeof before_owning.cpus, &before_owning.cpus))
			return -errno;
		/* leave all signals but the kicks to other threads, so that they do not cut elements */
		sigfillset(&set);
		sigdelset(&set, KICK_SIGNAL);
		sigdelset(&set, DWC_OVERFLOW_SIGNAL);
		pthread_sigmask(SIG_SETMASK, &set, &before_owning.signals);
	}
	before_owning.replicas++;
	r->tid = (int)syscall(SYS_gettid);
	kicked = r;
	err = dwc_replica_pin(r);
	if (!err && r->engine->config.counting)
		err = dwc_counter_open(r);
	if (!err)
		err = start_kicks(r);
	if (err)
		disown(r);
	return err;
}

static void announce(struct dwc_turn *turn, unsigned number)
{
	atomic_store(&turn->number, number);
	if (atomic_load(&turn->sleeping))
		syscall(SYS_futex, &turn->number, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Wait for a number. Spin first: a futex wake costs as much as a short element. */
static void await(struct dwc_replica *r, struct dwc_turn *turn, unsigned wanted)
{
	unsigned seen;

	for (int i = 0; i < r->engine->config.spin_turns; i++) {
		if (atomic_load(&turn->number) == wanted)
			return;
		__builtin_ia32_pause();
	}
	/* both sides write before they read what the other wrote, so at least one of them sees it */
	atomic_store(&turn->sleeping, 1);
	while ((seen = atomic_load(&turn->number)) != wanted)
		syscall(SYS_futex, &turn->number, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
	atomic_store(&turn->sleeping, 0);
}

static void *serve(void *argument)
{
	struct dwc_replica *r = argument;

	int owned = !(r->job_result = own(r));

	for (unsigned turn = 0;; turn++) {
		announce(&r->job_done, turn + 1);
		await(r, &r->job_posted, turn + 1);
		if (!r->job)
			break;
		dwc_leave(r, r->caller_at); /* its time is the caller's */
		r->job_result = r->job(r);
		dwc_enter(r, DWC_AT_HANDOVER);
	}
	if (owned)
		disown(r);
	return NULL;
}

int dwc_replica_start(struct dwc_replica *r)
{
	r->own.has_timer = r->at_once = 0;
	if (!r->has_thread)
		return own(r);
	memset(&r->job_posted, 0, sizeof r->job_posted);
	memset(&r->job_done, 0, sizeof r->job_done);
	if (pthread_create(&r->thread, NULL, serve, r)) {
		r->has_thread = 0;
		return -EAGAIN;
	}
	await(r, &r->job_done, 1);
	return r->job_result;
}

static void hand_over(struct dwc_replica *r, int (*job)(struct dwc_replica *))
{
	/* its thread waits: a job that is under way would never be waited for */
	DWC_ASSERT(r->engine, atomic_load(&r->job_done.number) == atomic_load(&r->job_posted.number) + 1);
	r->engine->stats.handovers += job != NULL;
	r->job = job;
	announce(&r->job_posted, atomic_load(&r->job_posted.number) + 1);
}

void dwc_replica_stop(struct dwc_replica *r)
{
	if (r->has_thread) {
		hand_over(r, NULL);
		pthread_join(r->thread, NULL);
	} else if (r->own.has_timer) {
		disown(r);
	}
}

static int job_end(struct dwc_replica *r)
{
	await(r, &r->job_done, atomic_load(&r->job_posted.number) + 1);
	return r->job_result;
}

/* Begin a job on the replica's thread. The caller does something else at the same time, and keeps the account of its own. */
void dwc_replica_post(struct dwc_replica *r, int (*job)(struct dwc_replica *))
{
	r->at_once = 1;
	hand_over(r, job);
}

/* The result of the job that was posted, once it has ended. */
int dwc_replica_wait(struct dwc_replica *r)
{
	int result = job_end(r);

	r->at_once = 0;
	return result;
}

/* Run a job on the thread that owns the vCPU. If the thread changes between two KVM_RUN, KVM waits for an RCU grace
 * period. */
int dwc_replica_call(struct dwc_replica *r, int (*job)(struct dwc_replica *))
{
	int result;

	if (!r->has_thread) {
		kicked = r;
		return job(r);
	}
	r->caller_at = dwc_enter(r, DWC_AT_HANDOVER);
	hand_over(r, job);
	result = job_end(r);
	dwc_leave(r, r->caller_at);
	return result;
}

/* Run a job on A, and then on B if that has a VM. */
int dwc_replica_call_both(struct dwc_engine *e, int (*job)(struct dwc_replica *))
{
	int err = dwc_replica_call(&e->replicas[0], job);

	return err || e->vms == 1 ? err : dwc_replica_call(&e->replicas[1], job);
}

/* Whether the slice is over. It ends by the count (a periodic kick finds an overflow whose signal was lost), or by time if
 * the guest has become slow. It needs some progress in any case: where an entry takes longer than a slice (in an
 * emulator), nothing would ever be done. */
static int slice_is_over(struct dwc_replica *r)
{
	int err = dwc_counter_exit(r);

	if (err)
		return err;
	if (r->count >= r->budget || (r->most_ns && dwc_ran_ns(r) >= r->most_ns && r->count >= DWC_LEAST_BUDGET)) {
		dwc_state_get_synced(r, &r->state);
		return DWC_RUN_COUNTER;
	}
	return 0;
}

/* Run to an exit that is no inner one, to the end of the counter's budget, or for limit_ns (0: no limit). Returns an enum dwc_run_end
 * or -errno. A run that was not ended by an exit can be continued. */
int dwc_replica_run(struct dwc_replica *r, uint64_t limit_ns)
{
	struct dwc_engine *e = r->engine;
	int booked;

	r->stage = DWC_STAGE_RAN;
	for (;;) {
		long err = dwc_tsc_enter(r);

		if (err || (err = kick_in_time(r, limit_ns)) || (err = dwc_counter_enter(r)))
			return (int)err;
		err = dwc_ioctl(r->vcpu_fd, KVM_RUN, NULL);
		r->ended_ns = dwc_now_ns();
		dwc_tsc_exit(r);
		if (err >= 0) {
			dwc_describe_exit(r);
			r->seen.count = 0;
			if (dwc_inner_pass(r))
				continue;
			break;
		}
		if (err != -EINTR && err != -EAGAIN)
			return (int)err;
		r->run->immediate_exit = 0;
		if (atomic_load(&e->requests.stop))
			return DWC_RUN_STOP_REQUESTED;
		if (e->config.counting && (err = slice_is_over(r)))
			return (int)err;
		dwc_see(r);
		if (dwc_is_at_limit(r, limit_ns))
			return DWC_RUN_TIME_LIMIT;
	}
	if (!e->protects)
		return 0;
	if ((booked = dwc_counter_exit(r)))
		return booked;
	if (e->checkpoint.due)
		return dwc_state_get(r, &r->state);
	dwc_state_get_synced(r, &r->state);
	return 0;
}

int dwc_replica_read_state(struct dwc_replica *r)
{
	return dwc_state_get(r, &r->state);
}

/* Finish the instruction of a pending I/O or MMIO exit without running the guest further (KVM api.rst,
 * KVM_RUN): setting registers before that would corrupt them. Returns 1 if its next fragment exits. */
int dwc_replica_finish(struct dwc_replica *r)
{
	long err;

	r->run->immediate_exit = 1;
	err = dwc_ioctl(r->vcpu_fd, KVM_RUN, NULL);
	r->run->immediate_exit = 0;
	if (err >= 0)
		return r->run->exit_reason == KVM_EXIT_MMIO || r->run->exit_reason == KVM_EXIT_IO;
	return err == -EINTR ? 0 : (int)err;
}

/* The same with all its fragments; reads get arbitrary data. */
int dwc_replica_complete(struct dwc_replica *r)
{
	int err;

	do
		err = dwc_replica_finish(r);
	while (err > 0);
	return err;
}
