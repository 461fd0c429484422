/* The guest's TSC, which shows the guest clock at 1 GHz, so that guests can keep time by one and wait by the other.
 *
 * The frozen TSC: with TSC scaling the guest's TSC runs at 1 kHz, and its offset is set so that both replicas read the
 * same value throughout an element (docs/progress.md). It ticks with the host's TSC: guest TSC = (host TSC * ratio >>
 * bits) + offset. An element that would run into a tick waits for it first.
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
#define LONGEST_WAIT_NS (900 * 1000ull)
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
	e->inputs.tsc = e->clock.guest_ns > e->inputs.tsc ? e->clock.guest_ns : e->inputs.tsc + 1;
}

/* The time that a site reads, never the same twice. With a frozen TSC it follows on from that. Otherwise it is the guest clock, plus the
 * host's TSC at the first site: more than any value that the guest has read by itself, since a VM's own TSC starts at 0. (Later reads
 * outside of sites are undone, because the replicas' TSCs are set apart. If the host cannot do that, as kvm_pvm, both replicas can read
 * the same value, and a site can then give an earlier time.) */
uint64_t dwc_tsc_next(struct dwc_engine *e)
{
	uint64_t now = e->inputs.tsc;

	if (!e->config.tsc_ratio) {
		if (!e->tsc.base)
			e->tsc.base = __rdtsc() - e->clock.guest_ns;
		now = e->tsc.base + e->clock.guest_ns;
	}
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

/* Called before each entry, on the owning thread. Elements are assumed to be about as long as those before. */
int dwc_tsc_enter(struct dwc_replica *r)
{
	struct dwc_engine *e = r->engine;
	uint64_t host, tick, need_ns, left;
	int err;

	if (!e->config.tsc_ratio)
		return 0;
	if (!e->protects)
		return follow(r);
	need_ns = 2 * r->tsc_usual_ns;
	if (need_ns > LONGEST_WAIT_NS)
		need_ns = LONGEST_WAIT_NS;
	host = __rdtsc();
	tick = scaled(e, host);
	left = (uint64_t)((((unsigned __int128)(tick + 1)) << e->config.tsc_bits) / e->config.tsc_ratio) - host;
	if (left < need_ns * e->config.tsc_host_khz / NS_PER_MS) {
		enum dwc_activity before = dwc_enter(r, DWC_AT_TICK_WAIT);
		uint64_t from_ns = dwc_now_ns();

		while (scaled(e, __rdtsc()) == tick)
			__builtin_ia32_pause();
		tick = scaled(e, __rdtsc());
		r->started_ns += dwc_now_ns() - from_ns; /* the wait is no time of the element: otherwise the next ones would wait even longer */
		e->stats.tick_waits++;
		dwc_leave(r, before);
	}
	if (tick == r->tsc_tick && e->inputs.tsc == r->tsc_value)
		return 0;
	if ((err = set_offset(r, e->inputs.tsc - tick)) < 0)
		return err;
	r->tsc_tick = tick;
	r->tsc_value = e->inputs.tsc;
	return 0;
}

/* Called after each exit: note whether the guest can have seen a tick. */
void dwc_tsc_exit(struct dwc_replica *r, uint64_t ran_ns)
{
	if (!r->engine->config.tsc_ratio)
		return;
	if (!r->engine->protects) {
		r->tsc_value = scaled(r->engine, __rdtsc()) + r->tsc_offset;
		return;
	}
	if (ran_ns < NS_PER_MS) { /* a longer one meets a tick in any case */
		r->tsc_usual_ns += (ran_ns > r->tsc_usual_ns ? ran_ns - r->tsc_usual_ns : 0) / 4;
		r->tsc_usual_ns -= (ran_ns < r->tsc_usual_ns ? r->tsc_usual_ns - ran_ns : 0) / 16;
	}
	r->tick_crossed |= scaled(r->engine, __rdtsc()) != r->tsc_tick;
}
