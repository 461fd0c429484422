/* What Python asks of the engine besides running it: start and stop, runs of a replica into an element, requests from other threads. */
#include "engine.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "assertion.h"
#include "host.h"
#include "phase.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

/* What a device in Python answered to the exit of the checkpoint. */
void dwc_engine_answer(struct dwc_engine *e, const uint8_t *data, uint64_t length)
{
	memcpy(e->inputs.io_data, data, length < DWC_IO_BYTES ? length : DWC_IO_BYTES);
}

/* As Python names it. */
static struct dwc_replica *numbered(struct dwc_engine *e, int replica)
{
	DWC_ASSERT(e, replica == 0 || (replica == 1 && e->protects));
	return &e->replicas[replica];
}

/* On a visit at the start: the instruction of a pending exit is finished, and the replica stands before the element's
 * first one, where registers may be set. Returns 1 if that instruction exits once more: then it cannot stand there. */
static int job_enter(struct dwc_replica *r)
{
	int err = dwc_replica_feed_once(r);

	if (!err)
		err = dwc_replica_finish(r); /* also where only registers of the run page wait to be taken over */
	dwc_state_get_synced(r, &r->state);
	return err;
}

int dwc_engine_enter(struct dwc_engine *e, int replica)
{
	DWC_ASSERT(e, e->phase == DWC_PHASE_START_VISITED);
	return dwc_replica_call(numbered(e, replica), job_enter);
}

/* On a visit at the end: somebody has changed registers. What is compared was read before. */
int dwc_engine_read_again(struct dwc_engine *e, int replica)
{
	struct dwc_replica *r = &e->replicas[replica];

	DWC_ASSERT(e, e->phase == DWC_PHASE_BOTH_ENDED);
	if (e->checkpoint.due)
		return dwc_replica_read_state(r);
	dwc_state_get_synced(r, &r->state);
	return 0;
}

static int job_move(struct dwc_replica *r)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(r->cpu, &cpus);
	return sched_setaffinity(0, sizeof cpus, &cpus) ? -errno : 0;
}

/* From now on the replica's thread runs on that CPU. */
int dwc_engine_move(struct dwc_engine *e, int replica, int cpu)
{
	numbered(e, replica)->cpu = cpu;
	return dwc_replica_call(numbered(e, replica), job_move);
}

static int job_run_for(struct dwc_replica *r)
{
	struct dwc_replica *owner = r->has_timer ? r : &r->engine->replicas[0]; /* of the timer: one a thread */
	int err = job_enter(r);

	r->started_ns = dwc_now_ns();
	if (err || (err = dwc_replica_kick_after(owner, r->limit_ns)))
		return err;
	err = dwc_replica_run(r, r->limit_ns);
	r->stage = DWC_STAGE_HAS_INPUTS;
	dwc_state_get_synced(r, &r->state);
	return err;
}

/* The same, and some way into the element: DWC_RUN_TIME_LIMIT if it is not over after so many nanoseconds. The counts are void then. */
int dwc_engine_run_for(struct dwc_engine *e, int replica, uint64_t ns)
{
	DWC_ASSERT(e, e->phase == DWC_PHASE_START_VISITED);
	e->slice.counts_void = 1;
	numbered(e, replica)->limit_ns = ns;
	return dwc_replica_call(numbered(e, replica), job_run_for);
}

void dwc_engine_request_stop(struct dwc_engine *e)
{
	atomic_store(&e->requests.stop, 1);
}

void dwc_engine_request_attention(struct dwc_engine *e)
{
	atomic_store(&e->requests.attention, 1);
}
