/* The progress counter: a perf event on the thread that owns a vCPU, counting in the guest only. Its
 * overflow makes KVM_RUN return, some instructions late (docs/progress.md). The count is a guide:
 * only their state shows that two replicas are at the same point. */
#include "vcpu/counter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "host.h"
#include "replica/replica.h"

#define NEVER (1ull << 40)

/* Call it on the owning thread. Returns 0 or -errno: ENOENT and EOPNOTSUPP (no PMU, or no such event), EACCES,
 * EBUSY (a mediated vPMU uses the PMU). */
int dwc_counter_open(struct dwc_replica *r)
{
	struct perf_event_attr attr;
	struct f_owner_ex owner = { F_OWNER_TID, (int)syscall(SYS_gettid) };

	memset(&attr, 0, sizeof attr);
	attr.size = sizeof attr;
	attr.type = r->engine->config.counter_type;
	attr.config = r->engine->config.counter_config;
	attr.sample_period = NEVER;
	attr.disabled = 1;
	attr.pinned = 1; /* a counter that is time-shared with others would miss events */
	attr.exclude_host = 1;
	attr.exclude_hv = 1;
	r->counter_fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (r->counter_fd < 0) {
		r->counter_fd = 0;
		return -errno;
	}
	if (fcntl(r->counter_fd, F_SETOWN_EX, &owner) || fcntl(r->counter_fd, F_SETSIG, DWC_OVERFLOW_SIGNAL) ||
	    fcntl(r->counter_fd, F_SETFL, O_ASYNC | O_NONBLOCK))
		return -errno;
	return 0;
}

void dwc_counter_close(struct dwc_replica *r)
{
	if (r->counter_fd)
		close(r->counter_fd);
	r->counter_fd = 0;
}

/* Count from zero, and interrupt at `budget`. ENABLE rather than REFRESH, so that it goes on counting after the overflow. */
int dwc_counter_arm(struct dwc_replica *r, uint64_t budget)
{
	if (ioctl(r->counter_fd, PERF_EVENT_IOC_DISABLE, 0) || ioctl(r->counter_fd, PERF_EVENT_IOC_RESET, 0) ||
	    ioctl(r->counter_fd, PERF_EVENT_IOC_PERIOD, &budget) || ioctl(r->counter_fd, PERF_EVENT_IOC_ENABLE, 0))
		return -errno;
	r->budget = budget;
	r->count_base = 0;
	return 0;
}

/* No overflows while the replica is restored and replays, since all its ends are natural ones. Nothing to do without a counter. */
int dwc_counter_disarm(struct dwc_replica *r)
{
	r->budget = UINT64_MAX;
	r->most_ns = 0;
	return r->counter_fd && ioctl(r->counter_fd, PERF_EVENT_IOC_DISABLE, 0) ? -errno : 0;
}

/* Go on counting, and interrupt after `more` events. The period starts anew; what was counted is kept in count_base. */
int dwc_counter_extend(struct dwc_replica *r, uint64_t more)
{
	uint64_t count;
	int err;

	if ((err = dwc_counter_read(r, &count)) || (err = dwc_counter_arm(r, more)))
		return err;
	r->count_base = count;
	r->budget = count + more;
	return 0;
}

/* The count since dwc_counter_arm(). ENODEV: the pinned event could not be scheduled, and cannot be read. */
int dwc_counter_read(struct dwc_replica *r, uint64_t *count)
{
	enum dwc_activity before = dwc_enter(r, DWC_AT_COUNTER);
	ssize_t got = read(r->counter_fd, count, sizeof *count);

	dwc_leave(r, before);
	if (got != sizeof *count)
		return got < 0 ? -errno : -ENODEV;
	*count += r->count_base;
	return 0;
}

/* A run of the self-test: count and time (started_ns, ended_ns) one entry of a vCPU that belongs to this thread.
 * Returns 1 if the overflow ended it, 0 if the guest did, or -errno. */
int dwc_counter_try(struct dwc_replica *r, uint64_t budget, uint64_t *count)
{
	int err = dwc_counter_open(r);
	long ran = 0;

	if (!err && !(err = dwc_counter_arm(r, budget))) {
		r->started_ns = dwc_now_ns();
		ran = dwc_ioctl(r->vcpu_fd, KVM_RUN, NULL);
		r->ended_ns = dwc_now_ns();
		err = dwc_counter_read(r, count);
	}
	dwc_counter_close(r);
	if (err)
		return err;
	return ran == -EINTR ? 1 : (int)ran;
}
