/* What Python asks of the engine besides running it: start and stop, single steps, requests from other threads. */
#include "core.h"

#include <string.h>

#define NS_PER_S 1000000000ull

/* What a device in Python answered to the exit of the checkpoint. */
void dwc_engine_answer(struct dwc_engine *e, const uint8_t *data, uint64_t length)
{
	memcpy(e->inputs.io_data, data, length < DWC_IO_BYTES ? length : DWC_IO_BYTES);
}

static int job_step(struct dwc_replica *r)
{
	r->started_ns = dwc_now_ns();
	return dwc_replica_run(r, NS_PER_S);
}

/* Enter one replica once, without new inputs (single steps are set up by the caller). */
int dwc_engine_step(struct dwc_engine *e, int replica)
{
	return dwc_replica_call(&e->replicas[replica], job_step);
}

int dwc_engine_resume_inputs(struct dwc_engine *e, int replica)
{
	return dwc_replica_call(&e->replicas[replica], dwc_replica_feed);
}

int dwc_engine_start(struct dwc_engine *e)
{
	int err, count = e->strategy == DWC_OFF ? 1 : 2;

	if ((err = dwc_install_kick()))
		return err;
	e->rearm = 1;
	e->checkpoint_due = e->checkpoint_every <= 1;
	/* a counter counts in every VM that its thread runs: one thread for each */
	e->replicas[1].has_thread = e->strategy == DWC_PARALLEL || (e->strategy == DWC_SEQUENTIAL && e->counting);
	for (int i = 0; i < count; i++) {
		e->replicas[i].engine = e;
		e->replicas[i].index = i;
		e->replicas[i].tsc_usual_ns = e->slice_ns; /* until it is known */
	}
	if ((err = dwc_replica_start(&e->replicas[0])))
		return err;
	return e->replicas[1].has_thread ? dwc_replica_start(&e->replicas[1]) : 0;
}

void dwc_engine_stop(struct dwc_engine *e)
{
	dwc_replica_stop(&e->replicas[0]);
	if (e->replicas[1].has_thread)
		dwc_replica_stop(&e->replicas[1]);
}

void dwc_engine_request_stop(struct dwc_engine *e)
{
	atomic_store(&e->stop, 1);
}

void dwc_engine_request_attention(struct dwc_engine *e)
{
	atomic_store(&e->attention, 1);
}
