/* The guest's TSC, which shows the guest clock at 1 GHz: whoever keeps time by one and waits by the other must not be late.
 *
 * Time that stands still: with TSC scaling the guest's TSC runs at 1 kHz, and its offset is set so that both
 * replicas read the same value all through an element (docs/progress.md). Its ticks are the host's:
 * guest TSC = (host TSC * ratio >> bits) + offset, so an element that would run into one waits for it.
 *
 * Under `off` it runs as fast as the guest clock does, which then goes by it: the VMM's own time counts, as in any VMM. Where that
 * clock jumps (in HLT) it is set forward. */
#include "vcpu/tsc.h"

#include <linux/kvm.h>
#include <x86intrin.h>

#include "engine.h"
#include "host.h"
#include "replica/replica.h"

#define NS_PER_MS 1000000ull
#define LONGEST_WAIT_NS (900 * 1000ull)
#define APART_NS 250000ull /* from the guest clock: no timer of a guest is as exact as that */

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

/* The guest's TSC for the next element, an input like any other: as it was while the host is in the same tick, which costs no
 * system call, unless the guest clock has jumped. */
void dwc_tsc_choose(struct dwc_engine *e)
{
	uint64_t tick;

	if (!e->config.tsc_ratio || e->config.strategy == DWC_OFF)
		return;
	tick = scaled(e, __rdtsc());
	if (tick == e->tsc.tick && e->clock.guest_ns < e->inputs.tsc + APART_NS)
		return;
	e->tsc.tick = tick;
	e->inputs.tsc = e->clock.guest_ns > e->inputs.tsc ? e->clock.guest_ns : e->inputs.tsc + 1;
}

/* Never the same twice. The frozen TSC's successor; where the TSC runs the guest clock, from the host's TSC on at the first site, which is
 * more than what the guest has read by itself, as a VM's own TSC begins at 0. (What it reads by itself later is undone, as the replicas' TSCs
 * are apart. Where the host does not let them be, as on kvm_pvm, both can read the same, and a site then an earlier time.) */
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

/* Before each entry, on the owning thread. Elements are about as long as the ones before. */
int dwc_tsc_enter(struct dwc_replica *r)
{
	struct dwc_engine *e = r->engine;
	uint64_t host, tick, need_ns, left;
	int err;

	if (!e->config.tsc_ratio)
		return 0;
	if (e->config.strategy == DWC_OFF)
		return follow(r);
	need_ns = 2 * r->tsc_usual_ns;
	if (need_ns > LONGEST_WAIT_NS)
		need_ns = LONGEST_WAIT_NS;
	host = __rdtsc();
	tick = scaled(e, host);
	left = (uint64_t)((((unsigned __int128)(tick + 1)) << e->config.tsc_bits) / e->config.tsc_ratio) - host;
	if (left < need_ns * e->config.tsc_host_khz / NS_PER_MS) {
		uint64_t from_ns = dwc_now_ns();

		while (scaled(e, __rdtsc()) == tick)
			__builtin_ia32_pause();
		tick = scaled(e, __rdtsc());
		r->started_ns += dwc_now_ns() - from_ns; /* no time of the element's, or the next ones would wait longer still */
		e->stats.tick_waits++;
	}
	if (tick == r->tsc_tick && e->inputs.tsc == r->tsc_value)
		return 0;
	if ((err = set_offset(r, e->inputs.tsc - tick)) < 0)
		return err;
	r->tsc_tick = tick;
	r->tsc_value = e->inputs.tsc;
	return 0;
}

/* After each exit: did the guest see a tick? */
void dwc_tsc_exit(struct dwc_replica *r, uint64_t ran_ns)
{
	if (!r->engine->config.tsc_ratio)
		return;
	if (r->engine->config.strategy == DWC_OFF) {
		r->tsc_value = scaled(r->engine, __rdtsc()) + r->tsc_offset;
		return;
	}
	if (ran_ns < NS_PER_MS) { /* a longer one meets a tick, whatever it waits for */
		r->tsc_usual_ns += (ran_ns > r->tsc_usual_ns ? ran_ns - r->tsc_usual_ns : 0) / 4;
		r->tsc_usual_ns -= (ran_ns < r->tsc_usual_ns ? r->tsc_usual_ns - ran_ns : 0) / 16;
	}
	r->tick_crossed |= scaled(r->engine, __rdtsc()) != r->tsc_tick;
}
