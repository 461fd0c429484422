/* The strategies as a table, and the one without protection. */
#include "element/strategy.h"

#include <stddef.h>

#include "element/commit.h"
#include "element/inplace.h"
#include "element/run.h"
#include "element/twovms.h"
#include "engine.h"
#include "phase.h"
#include "replica/clock.h"
#include "replica/inner.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "status.h"

/* One run. Nothing has to match, so the element may end anywhere: the time limit lets devices act. */
static int run_unprotected(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0];
	int end;

	dwc_limit_set(a, dwc_time_limit(e, &e->pc, e->clock.guest_ns), 1);
	dwc_inner_plan(a, DWC_NO_LIMIT, e->config.slice_ns);
	dwc_account(e, DWC_AT_FIRST_RUN);
	end = dwc_job_element(a);
	dwc_inner_commit(e);
	if (end == DWC_RUN_TIME_LIMIT) {
		e->has_pending_io = 0;
		dwc_advance_clock(e, dwc_ran_ns(a));
		a->stage = DWC_STAGE_AT_COMMITTED;
		dwc_set_phase(e, DWC_PHASE_BETWEEN);
		return 0;
	}
	if (!end)
		dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return dwc_stop_of(end);
}

const struct dwc_strategy_ops *dwc_strategy_ops(enum dwc_strategy strategy)
{
	static const struct dwc_strategy_ops table[DWC_STRATEGIES] = {
		[DWC_OFF] = { 1, 0, NULL, run_unprotected, NULL },
		[DWC_SEQUENTIAL] = { 2, 1, NULL, dwc_run_sequential, NULL },
		[DWC_PARALLEL] = { 2, 1, NULL, dwc_run_parallel, NULL },
		[DWC_IN_PLACE] = { 1, 1, dwc_inplace_make_ready, dwc_inplace_run, dwc_inplace_run_again },
		[DWC_REPLAY] = { 1, 1, NULL, NULL, NULL }, /* element/replay.c runs its elements */
	};

	return strategy < DWC_STRATEGIES ? &table[strategy] : NULL;
}
