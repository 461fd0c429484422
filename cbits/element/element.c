/* The life of an element: inputs, e1 and e2, compare, commit, device. Python takes over when the
 * two runs differ, when no natural end comes, and for devices that are not in C. */
#include "element/element.h"

#include "assertion.h"
#include "element/between.h"
#include "element/choose.h"
#include "element/commit.h"
#include "element/run.h"
#include "element/settle.h"
#include "element/strategy.h"
#include "engine.h"
#include "memory/scrub.h"
#include "phase.h"
#include "sites/sites.h"
#include "status.h"

#define WAITING_ELEMENTS 32

/* Whether the caller wants visits at both ends of this element (in place also between its runs). */
static int is_visited(const struct dwc_engine *e)
{
	return e->stats.committed >= e->requests.visit_from;
}

/* Run until the element is over or cut; in place until e1 is. */
static int run(struct dwc_engine *e, int (*as_strategy)(struct dwc_engine *))
{
	int stop;

	dwc_set_phase(e, DWC_PHASE_RUNNING);
	stop = as_strategy(e);
	e->replicas[0].may_be_cut = e->replicas[1].may_be_cut = 0;
	if (stop > 0) {
		dwc_set_phase(e, DWC_PHASE_DISCARDED);
		dwc_account_discard(e);
	}
	if (stop || !is_visited(e))
		return stop;
	if (e->phase == DWC_PHASE_FIRST_RUN_DONE)
		return DWC_STOP_BETWEEN_RUNS;
	if (e->phase == DWC_PHASE_COMPARED) /* the visitor may change what was found equal */
		dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return e->phase == DWC_PHASE_BOTH_ENDED ? DWC_STOP_ELEMENT_END : 0;
}

/* Release sites that cost too much, once nothing is pending: a settling element leads there. */
static int release_hot_sites(struct dwc_engine *e)
{
	if (e->phase != DWC_PHASE_BETWEEN || !dwc_sites_are_hot(e))
		return 0;
	if (dwc_is_settled(e) && !e->log.count)
		return dwc_release_sites(e);
	e->requests.settle = 1;
	return 0;
}

/* From the last committed state to the start of the runs: requests from outside, idle time, inputs. A restart has its inputs already. */
static int begin(struct dwc_engine *e)
{
	int stop;

	dwc_account(e, DWC_AT_BETWEEN);
	dwc_account_element(e);
	if (e->ops->make_ready && (stop = e->ops->make_ready(e)))
		return stop;
	if ((stop = dwc_between_elements(e)))
		return stop;
	if (e->phase != DWC_PHASE_INPUTS_CHOSEN) {
		if (e->config.scrub_bytes_per_s && (stop = dwc_scrub(e)))
			return stop;
		if ((stop = release_hot_sites(e)))
			return stop;
		dwc_choose_inputs(e);
		dwc_set_phase(e, e->phase == DWC_PHASE_FRAGMENT ? DWC_PHASE_COMPARED : DWC_PHASE_INPUTS_CHOSEN);
		if (e->phase == DWC_PHASE_COMPARED)
			return 0;
		if (dwc_is_cut_already(e) && !is_visited(e))
			return DWC_STOP_TIME_LIMIT;
	}
	if (e->waiting > WAITING_ELEMENTS) {
		e->waiting = 0;
		return DWC_STOP_WAITING;
	}
	if (!is_visited(e)) {
		/* for a caller that waits. Not behind a visit, which may have injected a fault: the cut would undo it */
		e->replicas[0].may_be_cut = e->replicas[1].may_be_cut = 1;
		return run(e, e->inputs.settles ? dwc_run_settling : e->ops->run);
	}
	dwc_set_phase(e, DWC_PHASE_START_VISITED);
	return DWC_STOP_ELEMENT_START;
}

/* Compare and commit, then let a device answer. */
static int finish(struct dwc_engine *e)
{
	int status;

	dwc_account(e, DWC_AT_COMPARE_COMMIT);
	if ((status = dwc_engine_commit(e))) {
		dwc_account_discard(e);
		return status < 0 ? status : DWC_STOP_DIVERGED;
	}
	dwc_account(e, DWC_AT_DEVICE);
	return dwc_act(e);
}

/* Go from the current phase to the next one. */
static int advance(struct dwc_engine *e)
{
	switch (e->phase) {
	case DWC_PHASE_BETWEEN:
	case DWC_PHASE_FRAGMENT:
	case DWC_PHASE_INPUTS_CHOSEN:
		return begin(e);
	case DWC_PHASE_START_VISITED:
		return run(e, e->ops->run);
	case DWC_PHASE_FIRST_RUN_DONE:
		return run(e, e->ops->run_again);
	case DWC_PHASE_BOTH_ENDED:
	case DWC_PHASE_COMPARED:
		return finish(e);
	default: /* the replicas are in an undefined state: only a rollback leads on, unless the run is over */
		DWC_ASSERT(e, dwc_is_stop_requested(e));
		return DWC_STOP_REQUESTED;
	}
}

/* Run elements until Python is needed, so many are committed in all (0: no limit), or one that is to be visited comes. Returns an
 * enum dwc_stop or -errno, after which the run is over. */
int dwc_engine_run(struct dwc_engine *e, uint64_t elements, uint64_t visit_from)
{
	int stop;

	e->requests.elements_limit = elements;
	e->requests.visit_from = visit_from;
	do
		stop = advance(e);
	while (!stop);
	dwc_account(e, DWC_AT_PYTHON);
	DWC_ASSERT(e, stop < 0 || (stop >= DWC_STOP_EXIT && stop <= DWC_STOP_RECORDED));
	return stop;
}
