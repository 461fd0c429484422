/* Locates a read of the host by a search from the last committed state on. A search leaves traces in the guest, so a rollback follows;
 * what it has found, and why it ended, is in dwc_engine.search. */
#include "element/locate.h"

#include "assertion.h"
#include "element/between.h"
#include "element/rollback.h"
#include "engine.h"
#include "phase.h"
#include "replica/replica.h"
#include "sites/scan.h"
#include "sites/search.h"
#include "status.h"

static int search_and_return(struct dwc_engine *e, int (*search)(struct dwc_engine *))
{
	enum dwc_phase phase = e->phase;
	int err;

	DWC_ASSERT(e, phase == DWC_PHASE_BETWEEN || phase == DWC_PHASE_INPUTS_CHOSEN);
	DWC_ASSERT(e, e->replicas[0].stage == DWC_STAGE_AT_COMMITTED);
	if ((err = search(e)) || (err = dwc_engine_rollback(e, 0, phase)))
		return err;
	/* a search that was stopped says nothing of the guest, even if the rollback had nothing to replay and could be done */
	return dwc_is_stop_requested(e) ? DWC_ROLLBACK_STOP_REQUESTED : DWC_ROLLBACK_DONE;
}

static int locate(struct dwc_engine *e, int (*search)(struct dwc_engine *))
{
	enum dwc_activity before = dwc_enter(&e->replicas[0], DWC_AT_SEARCH);
	int result = search_and_return(e, search);

	dwc_leave(&e->replicas[0], before);
	return result;
}

/* By a scan, for at most search.limit_ns and search.events (0: no limit); see sites/scan.c. Both replicas must be at the last committed
 * state, and are there again afterwards. Returns an enum dwc_rollback_result or -errno. */
int dwc_locate_by_traps(struct dwc_engine *e)
{
	return locate(e, dwc_search_by_traps);
}

/* The same by single steps, for at most search.limit instructions and search.limit_ns; see sites/search.c. */
int dwc_locate_by_steps(struct dwc_engine *e)
{
	return locate(e, dwc_search_by_steps);
}
