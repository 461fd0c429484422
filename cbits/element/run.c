/* A replica's run of an element: from its inputs to the end. */
#include "element/run.h"

#include "element/commit.h"
#include "element/slice.h"
#include "engine.h"
#include "host.h"
#include "memory/pages.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "status.h"

static int job_continue(struct dwc_replica *r)
{
	int status = dwc_replica_run(r, r->limit_ns);

	if (status == 0 && r->engine->strategy != DWC_OFF && dwc_memory_due(r))
		status = dwc_pages_harvest(r);
	return status;
}

int dwc_job_element(struct dwc_replica *r)
{
	int err;

	if (r->engine->arm && (err = dwc_slice_arm(r)))
		return err;
	r->started_ns = dwc_now_ns();
	r->tick_crossed = r->harvested = 0;
	if (!r->midway && (err = dwc_replica_feed(r)))
		return err;
	r->midway = 0;
	return job_continue(r);
}

/* One replica reached a natural end and the other did not yet: it must, within generous time. */
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r)
{
	int status;

	r->limit_ns += e->hang_ns;
	status = dwc_replica_call(r, job_continue);
	if (status != DWC_SLICE_UP)
		return status;
	e->diff = DWC_DIFF_HANG;
	return DWC_DIVERGED;
}
