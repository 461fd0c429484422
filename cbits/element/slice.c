/* Slices: after how many events an element is ended, by the rate at which the guest's events are counted. */
#include "element/slice.h"

#include "element/align.h"
#include "engine.h"
#include "replica/clock.h"
#include "replica/replica.h"
#include "vcpu/counter.h"

#define NS_PER_MS 1000000ull

/* Update the rate of events by this slice. */
void dwc_slice_measure(struct dwc_engine *e)
{
	if (e->slice.used_ns)
		e->slice.events_per_ms = (e->slice.events_per_ms + e->replicas[0].count * NS_PER_MS / e->slice.used_ns) / 2;
}

/* A slice extends over several elements, so that short elements cost no system call: the counters are armed again only
 * when half of the slice is used. The budget follows the rate that was counted. */
void dwc_slice_plan(struct dwc_engine *e)
{
	e->slice.arm = 0;
	if (!e->config.counting || (!e->slice.counts_void && e->slice.used_ns < e->config.slice_ns / 2))
		return;
	if (!e->slice.counts_void)
		dwc_slice_measure(e);
	e->slice.budget = e->slice.events_per_ms * e->config.slice_ns / NS_PER_MS;
	if (e->slice.budget < DWC_LEAST_BUDGET)
		e->slice.budget = DWC_LEAST_BUDGET;
	e->slice.events = e->slice.budget;
	e->slice.arm = 1;
	e->slice.counts_void = 0;
	e->slice.used_ns = 0;
}

/* Start a slice. No element is to last longer than one and a half slices, whatever the counter says. */
void dwc_slice_arm(struct dwc_replica *r)
{
	uint64_t budget = r->engine->slice.budget;

	dwc_counter_arm(r, r->index ? dwc_budget_of_b(r->engine, budget) : budget);
	r->most_ns = r->engine->config.slice_ns * 3 / 2;
}

/* Note an element's length: the shorter of both replicas' times, which the host has disturbed less. */
void dwc_slice_note(struct dwc_engine *e)
{
	uint64_t a_ns = dwc_ran_ns(&e->replicas[0]), b_ns = dwc_ran_ns(&e->replicas[1]);
	uint64_t ns = a_ns < b_ns ? a_ns : b_ns;

	e->slice.used_ns += ns;
	if (ns > e->stats.longest_ns)
		e->stats.longest_ns = ns;
}
