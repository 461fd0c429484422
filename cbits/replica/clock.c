/* The guest clock: by the host's, by the guest's TSC, or by how long the guest ran. */
#include "replica/clock.h"

#include "engine.h"
#include "host.h"
#include "replica/replica.h"

/* The host time that its last run took. */
uint64_t dwc_ran_ns(const struct dwc_replica *r)
{
	return r->ended_ns - r->started_ns;
}

/* What it shows after the guest has run for that long, in host time. */
uint64_t dwc_clock_after(const struct dwc_engine *e, uint64_t ran_ns)
{
	if (e->clock.host_base_ns)
		return dwc_now_ns() - e->clock.host_base_ns;
	if (!e->protects && e->config.tsc_ratio)
		return e->replicas[0].tsc_value > e->clock.guest_ns ? e->replicas[0].tsc_value : e->clock.guest_ns;
	return e->clock.guest_ns + ran_ns / e->config.clock_divisor;
}
