/* The guest's TSC, which shows the guest clock at 1 GHz, so that guests can keep time by one and wait by the other.
 *
 * The frozen TSC: with TSC scaling the guest's TSC runs at 1 kHz, and its offset is set so that both replicas read the
 * same value throughout an element (docs/progress.md). It ticks with the host's TSC: guest TSC = (host TSC * ratio >>
 * bits) + offset. So the guest is left shortly before each tick, by a kick, and entered again right after it with another offset:
 * an element reads one value from its start to its end, however long it is.
 *
 * Under `off` the TSC runs at the speed of the guest clock, and the guest clock follows it; time spent in the VMM counts, as in
 * any VMM. When the clock jumps (in HLT) the TSC is set forward. */
#include "vcpu/tsc.h"

#include <linux/kvm.h>
#include <x86intrin.h>

#include "engine.h"
#include "host.h"
#include "replica/replica.h"

#define NS_PER_MS 1000000ull
#define LEAST_MARGIN_NS 4000u
#define MOST_MARGIN_NS 100000u
#define LATE_NS 60000u /* what comes later than this and the margin was not late, but kept from running */
#define EARLY_NS 3000u /* by which a kick may be early: an entry right after it waits for the tick */
#define APART_NS 250000ull /* difference to the guest clock that is tolerated: no guest's timer is more exact */

static uint64_t scaled(const struct dwc_engine *e, uint64_t host)
{
	return (uint64_t)((unsigned __int128)host * e->config.tsc_ratio >> e->config.tsc_bits);
}

static int set_offset(struct dwc_replica *r, uint64_t offset)
{
	r->tsc_offset = offset;
	struct kvm_device_attr attribute = { 0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, (uint64_t)(uintptr_t)&offset };

	return (int)dwc_ioctl(r->vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute);
}

/* Choose the guest's TSC for the next element, one of its inputs. It stays the same while the host is in the same tick, which
 * costs no system call, unless the guest clock has jumped. */
void dwc_tsc_choose(struct dwc_engine *e)
{
	uint64_t tick;

	if (!e->config.tsc_ratio || !e->protects)
		return;
	tick = scaled(e, __rdtsc());
	if (tick == e->tsc.tick && e->clock.guest_ns < e->inputs.tsc + APART_NS)
		return;
	e->tsc.tick = tick;
	/* more than before also if the clock has not moved: the last element may have read a tick more */
	e->inputs.tsc = e->clock.guest_ns > e->inputs.tsc ? e->clock.guest_ns : e->inputs.tsc + 1;
}

/* The time that sites read. With a frozen TSC it is what that shows to other instructions. Otherwise it is the guest clock, plus the
 * host's TSC at the first site: more than any value that the guest has read by itself, since a VM's own TSC starts at 0; and each call
 * gives a later one. (Later reads outside of sites are undone, because the replicas' TSCs are set apart. If the host cannot do that, as
 * kvm_pvm, both replicas can read the same value, and a site can then give an earlier time.) */
uint64_t dwc_tsc_next(struct dwc_engine *e)
{
	uint64_t now;

	if (e->config.tsc_ratio)
		return e->inputs.tsc;
	if (!e->tsc.base)
		e->tsc.base = __rdtsc() - e->clock.guest_ns;
	now = e->tsc.base + e->clock.guest_ns;
	e->tsc.last_read = now > e->tsc.last_read ? now : e->tsc.last_read + 1;
	return e->tsc.last_read;
}

static int follow(struct dwc_replica *r)
{
	const struct dwc_engine *e = r->engine;
	uint64_t now = scaled(e, __rdtsc());

	if (r->tsc_runs && e->clock.guest_ns < now + r->tsc_offset + APART_NS)
		return 0;
	r->tsc_runs = 1;
	return set_offset(r, e->clock.guest_ns - now);
}

static uint64_t to_tsc(const struct dwc_engine *e, uint64_t ns)
{
	return ns * e->config.tsc_host_khz / NS_PER_MS;
}

/* The host's TSC at which the tick after `tick` begins, if the guest's TSC is (host TSC * ratio) >> bits. */
uint64_t dwc_tsc_end_of_tick(uint64_t tick, uint64_t ratio, unsigned bits)
{
	return (uint64_t)(((((unsigned __int128)tick + 1) << bits) + ratio - 1) / ratio);
}

/* Wait for the next tick. The wait is no time of the element. */
static void wait_for_tick(struct dwc_replica *r)
{
	enum dwc_activity before = dwc_enter(r, DWC_AT_TICK_WAIT);
	uint64_t from_ns = dwc_now_ns();

	while (__rdtsc() < r->tsc_tick_ends)
		__builtin_ia32_pause();
	r->started_ns += dwc_now_ns() - from_ns;
	__atomic_fetch_add(&r->engine->stats.tick_waits, 1, __ATOMIC_RELAXED);
	dwc_leave(r, before);
}

/* A tick has begun: note when it ends, and when the guest must be left for that. The margin shrinks while kicks come in time. */
static void begin_tick(struct dwc_replica *r, uint64_t host)
{
	const struct dwc_engine *e = r->engine;
	uint64_t least = to_tsc(e, LEAST_MARGIN_NS), left;

	r->tsc_tick = scaled(e, host);
	r->tsc_tick_ends = dwc_tsc_end_of_tick(r->tsc_tick, e->config.tsc_ratio, e->config.tsc_bits);
	r->on->tsc_margin -= r->on->tsc_margin / 1024;
	if (r->on->tsc_margin < least)
		r->on->tsc_margin = least;
	left = r->tsc_tick_ends - host;
	r->leave_ns = dwc_now_ns() + (left > r->on->tsc_margin ? left - r->on->tsc_margin : 0) * NS_PER_MS / e->config.tsc_host_khz;
}

/* Called before each entry, on the owning thread. After it the guest must be left at r->leave_ns. */
int dwc_tsc_enter(struct dwc_replica *r)
{
	struct dwc_engine *e = r->engine;
	uint64_t host, tick = r->tsc_tick, value = e->inputs.tsc;
	int err;

	if (!e->config.tsc_ratio)
		return 0;
	if (!e->protects)
		return follow(r);
	host = __rdtsc();
	if (host < r->tsc_tick_ends && r->tsc_tick_ends - host < r->on->tsc_margin + to_tsc(e, EARLY_NS)) {
		wait_for_tick(r);
		host = __rdtsc();
	}
	if (host >= r->tsc_tick_ends)
		begin_tick(r, host);
	if (tick == r->tsc_tick && value == r->tsc_value)
		return 0;
	if ((err = set_offset(r, value - r->tsc_tick)) < 0)
		return err;
	r->tsc_value = value;
	return 0;
}

/* Called after each exit: note whether the guest can have seen a tick. If the kick was late, the next ones come a little earlier; not
 * if it was much too late: then the host has run something else meanwhile, and the guest did not run across the tick.
 *
 * The TSC is set back at the next entry: so an element has one time, except in the moment between the tick and the kick. A replica that
 * has read the time there mostly differs from the other one, whose kick came elsewhere. */
void dwc_tsc_exit(struct dwc_replica *r)
{
	const struct dwc_engine *e = r->engine;
	uint64_t host, late;

	if (!e->config.tsc_ratio)
		return;
	host = __rdtsc();
	if (!e->protects) {
		r->tsc_value = scaled(e, host) + r->tsc_offset;
		return;
	}
	if (host < r->tsc_tick_ends)
		return;
	r->tick_crossed = 1;
	late = host - r->tsc_tick_ends;
	if (late < r->on->tsc_margin + to_tsc(e, LATE_NS) && r->on->tsc_margin < to_tsc(e, MOST_MARGIN_NS))
		r->on->tsc_margin += late < r->on->tsc_margin / 8 ? late : r->on->tsc_margin / 8;
}
