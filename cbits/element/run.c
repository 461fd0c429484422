/* A replica's run of an element, from its inputs to its end. */
#include "element/run.h"

#include "assertion.h"
#include "element/commit.h"
#include "element/slice.h"
#include "engine.h"
#include "host.h"
#include "memory/pages.h"
#include "replica/clock.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "status.h"

static int job_continue(struct dwc_replica *r)
{
	int end;

	do
		end = dwc_replica_run(r, r->limit_ns);
	while (end == DWC_RUN_TIME_LIMIT && dwc_limit_stretches(r));
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

/* The element was cut by its time limit, this replica in the fewest inner exits: it ends at the last one of them when it is run again. */
int dwc_cut(struct dwc_engine *e, const struct dwc_replica *r)
{
	e->inner_limit = r->inner.count ? r->inner.count : DWC_NO_LIMIT;
	e->cut.without_exit_ns = dwc_ran_ns(r) - (r->inner.count ? r->inner.answered_ns : 0);
	e->cut.last = r->inner.count ? e->stats.committed + 1 : 0;
	e->cut.waits = dwc_waits_in_loop(r);
	if (!e->cut.waits)
		dwc_limit_was_passed(r);
	return DWC_STOP_TIME_LIMIT;
}

/* Whether the element need not run to be cut: the one before it was cut, and ended at its last inner exit. This one would go on from there
 * as that one did, for as long without an exit, since nothing comes in between. */
int dwc_is_cut_already(const struct dwc_engine *e)
{
	const struct dwc_inputs *in = &e->inputs;

	return e->cut.last && e->cut.last == e->stats.committed && in->vector < 0 && !in->nmi && !in->window;
}

static int job_go_on(struct dwc_replica *r)
{
	if (dwc_inner_go_on(r))
		return job_continue(r);
	return DWC_RUN_EXIT;
}

/* Let a replica that has stopped at an exit, which could be an inner one, go on. Returns as dwc_job_element() does. */
int dwc_run_on(struct dwc_replica *r, uint32_t inner_limit)
{
	r->may_be_cut = 0;
	dwc_inner_plan(r, inner_limit, 0);
	return dwc_replica_call(r, job_go_on);
}

/* One replica has reached a natural end: give the other hang_ns more to reach one, too. */
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r)
{
	int end;

	dwc_inner_plan(r, dwc_inner_limit_to_meet(&e->replicas[!r->index]), 0);
	r->limit_ns += e->config.hang_ns;
	r->stretch_most = 0;
	r->may_be_cut = 0;
	end = dwc_replica_call(r, job_continue);
	if (end != DWC_RUN_TIME_LIMIT)
		return dwc_stop_of(end);
	e->divergence.groups = DWC_DIFF_HANG;
	return DWC_STOP_DIVERGED;
}
