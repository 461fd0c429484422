/* The progress counter: a perf event on a thread that owns vCPUs, counting in the guest only. Its
 * overflow makes KVM_RUN return, some instructions late (docs/progress.md). The count is a guide:
 * only their state shows that two replicas are at the same point.
 *
 * A replica's count is brought up to date at each of its exits, and the overflow is set at its next entry: by one system call, and only if
 * the one that is set would come too late. One that comes too early, since another replica of the thread has used events, is found to be none. */
#include "vcpu/counter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include "engine.h"
#include "host.h"
#include "replica/replica.h"

#define NEVER (1ull << 40)

/* Its user page, through which RDPMC reads it. Without (kernels can forbid it) it is read by a system call. */
static struct perf_event_mmap_page *map_page(int fd)
{
	struct perf_event_mmap_page *page = mmap(NULL, DWC_PAGE, PROT_READ, MAP_SHARED, fd, 0);

	return page == MAP_FAILED ? NULL : page;
}

/* Call it on the owning thread. Returns 0 or -errno: ENOENT and EOPNOTSUPP (no PMU, or no such event), EACCES,
 * EBUSY (a mediated vPMU uses the PMU). */
int dwc_counter_open(struct dwc_replica *r)
{
	struct dwc_counter *c = &r->on->counter;
	struct perf_event_attr attr;
	struct f_owner_ex owner = { F_OWNER_TID, (int)syscall(SYS_gettid) };
	int fd;

	memset(c, 0, sizeof *c);
	memset(&attr, 0, sizeof attr);
	attr.size = sizeof attr;
	attr.type = r->engine->config.counter_type;
	attr.config = r->engine->config.counter_config;
	attr.sample_period = NEVER;
	attr.pinned = 1; /* a counter that is time-shared with others would miss events */
	attr.exclude_host = 1;
	attr.exclude_hv = 1;
	fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return -errno;
	c->fd = fd;
	c->page = map_page(fd);
	if (fcntl(fd, F_SETOWN_EX, &owner) || fcntl(fd, F_SETSIG, DWC_OVERFLOW_SIGNAL) || fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK))
		return -errno;
	return 0;
}

void dwc_counter_close(struct dwc_replica *r)
{
	struct dwc_counter *c = &r->on->counter;

	if (c->page)
		munmap(c->page, DWC_PAGE);
	if (c->fd)
		close(c->fd);
	memset(c, 0, sizeof *c);
}

/* Read it on its thread as perf_event_open(2) has it under cap_user_rdpmc. Returns whether it can be read so now. */
static int read_page(const struct perf_event_mmap_page *page, uint64_t *count)
{
	uint32_t sequence, index;

	do {
		sequence = __atomic_load_n(&page->lock, __ATOMIC_ACQUIRE);
		index = page->index;
		if (!page->cap_user_rdpmc || !index)
			return 0;
		*count = (uint64_t)(page->offset + ((int64_t)(__rdpmc((int)index - 1) << (64 - page->pmc_width)) >> (64 - page->pmc_width)));
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__atomic_load_n(&page->lock, __ATOMIC_RELAXED) != sequence);
	return 1;
}

/* All events since it was opened. ENODEV: the pinned event could not be scheduled, and cannot be read. */
static int read_event(const struct dwc_counter *c, uint64_t *count)
{
	ssize_t got;

	if (c->page && read_page(c->page, count))
		return 0;
	got = read(c->fd, count, sizeof *count);
	return got == sizeof *count ? 0 : got < 0 ? -errno : -ENODEV;
}

/* Count from zero, and end the run at `budget`. */
void dwc_counter_arm(struct dwc_replica *r, uint64_t budget)
{
	r->count = 0;
	r->budget = budget;
	r->on->counter.due = 1;
}

/* No overflows while the replica is restored and replays, since all its ends are natural ones. Nothing to do without a counter. */
void dwc_counter_disarm(struct dwc_replica *r)
{
	dwc_counter_arm(r, NEVER);
	r->most_ns = 0;
}

/* Go on counting, and end the run after `more` events. */
void dwc_counter_extend(struct dwc_replica *r, uint64_t more)
{
	r->budget = r->count + more;
	r->on->counter.due = 1;
}

/* Let the overflow come `more` events from now. PERIOD takes effect at once on an active event (__perf_event_period). */
static int set_overflow(struct dwc_replica *r, uint64_t more)
{
	enum dwc_activity before = dwc_enter(r, DWC_AT_COUNTER);
	struct dwc_counter *c = &r->on->counter;
	int err = ioctl(c->fd, PERF_EVENT_IOC_PERIOD, &more) ? -errno : 0;

	c->fires = c->booked + more;
	dwc_leave(r, before);
	return err;
}

/* Before an entry, on the replica's thread: book from now on to this replica, and let its overflow come in time. */
int dwc_counter_enter(struct dwc_replica *r)
{
	struct dwc_counter *c = &r->on->counter;
	uint64_t more = r->budget > r->count ? r->budget - r->count : 1;
	int err;

	if (!c->fd || (c->counted == r && !c->due))
		return 0;
	c->counted = r;
	if ((err = read_event(c, &c->booked)))
		return err;
	if (c->due || c->booked >= c->fires || c->booked + more < c->fires)
		err = set_overflow(r, more);
	c->due = 0;
	return err;
}

/* After an exit, on the replica's thread: bring its count up to date. */
int dwc_counter_exit(struct dwc_replica *r)
{
	struct dwc_counter *c = &r->on->counter;
	uint64_t before = c->booked;
	int err;

	if (!c->fd)
		return 0;
	if ((err = read_event(c, &c->booked)))
		return err;
	r->count += c->booked - before;
	c->due |= c->booked >= c->fires;
	return 0;
}

/* A run of the self-test: count and time (started_ns, ended_ns) one entry of a vCPU that belongs to this thread.
 * Returns 1 if the overflow ended it, 0 if the guest did, or -errno. */
int dwc_counter_try(struct dwc_replica *r, uint64_t budget, uint64_t *count)
{
	int err;
	long ran = 0;

	r->on = &r->own;
	dwc_counter_arm(r, budget);
	if (!(err = dwc_counter_open(r)) && !(err = dwc_counter_enter(r))) {
		r->started_ns = dwc_now_ns();
		ran = dwc_ioctl(r->vcpu_fd, KVM_RUN, NULL);
		r->ended_ns = dwc_now_ns();
		err = dwc_counter_exit(r);
	}
	*count = r->count;
	dwc_counter_close(r);
	if (err)
		return err;
	return ran == -EINTR ? 1 : (int)ran;
}
