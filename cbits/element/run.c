/* A replica's run of an element, from its inputs to its end. */
#include "element/run.h"

#include "assertion.h"
#include "element/commit.h"
#include "element/slice.h"
#include "engine.h"
#include "host.h"
#include "memory/pages.h"
#include "pc/interrupts.h"
#include "pc/pc.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "status.h"

#define NS_PER_S 1000000000ull
#define LONGEST_WAIT_NS 64000000000ull /* a kernel that unpacks itself has no exit until it is done */

/* How long the element may run before an interrupt has to be let in: until the next timer interrupt, at least the patience, at most
 * a second (for input from outside). */
static uint64_t time_until_due(struct dwc_engine *e)
{
	uint64_t deadline = dwc_pc_deadline(&e->pc, e->clock.guest_ns), left;

	if (dwc_pc_interrupt_pending(&e->pc))
		return e->config.patience_ns;
	if (deadline == UINT64_MAX)
		return NS_PER_S + e->config.patience_ns;
	left = deadline > e->clock.guest_ns ? deadline - e->clock.guest_ns : 0;
	if (left > NS_PER_S)
		left = NS_PER_S;
	left *= e->clock.host_base_ns ? 1 : e->config.clock_divisor;
	return left > e->config.patience_ns ? left : e->config.patience_ns;
}

/* An element cut by its time limit is discarded; the limit is raised from time to time so that long elements finish. */
uint64_t dwc_time_limit(struct dwc_engine *e)
{
	uint64_t limit = time_until_due(e), longest = limit > LONGEST_WAIT_NS ? limit : LONGEST_WAIT_NS;

	return limit * e->clock.patience_factor < longest ? limit * e->clock.patience_factor : longest;
}

static int job_continue(struct dwc_replica *r)
{
	int end = dwc_replica_run(r, r->limit_ns);

	if (end == DWC_RUN_EXIT && r->engine->protects && dwc_memory_due(r))
		return dwc_pages_harvest(r);
	return end;
}

/* Run an element on the owning thread, from the last committed state or from where a visit has led. Returns an enum dwc_run_end or
 * -errno. */
int dwc_job_element(struct dwc_replica *r)
{
	int err;

	DWC_ASSERT(r->engine, r->stage == DWC_STAGE_AT_COMMITTED || r->stage == DWC_STAGE_HAS_INPUTS);
	if (r->engine->slice.arm)
		dwc_slice_arm(r);
	r->started_ns = dwc_now_ns();
	if (r->stage == DWC_STAGE_AT_COMMITTED && (err = dwc_replica_feed(r)))
		return err;
	return job_continue(r);
}

/* What a run's end means for the element: an enum dwc_stop, 0 if the element goes on, or -errno. */
int dwc_stop_of(int run_end)
{
	switch (run_end) {
	case DWC_RUN_TIME_LIMIT:
		return DWC_STOP_TIME_LIMIT;
	case DWC_RUN_STOP_REQUESTED:
		return DWC_STOP_REQUESTED;
	default:
		return run_end;
	}
}

/* One replica has reached a natural end: give the other hang_ns more to reach one, too. */
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r)
{
	int end;

	r->limit_ns += e->config.hang_ns;
	end = dwc_replica_call(r, job_continue);
	if (end != DWC_RUN_TIME_LIMIT)
		return dwc_stop_of(end);
	e->divergence.groups = DWC_DIFF_HANG;
	return DWC_STOP_DIVERGED;
}
