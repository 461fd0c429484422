/* What Python asks of the engine besides running elements: runs of a replica into an element, requests from other threads, answers. */
#include "engine.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "assertion.h"
#include "host.h"
#include "phase.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "vcpu/counter.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

/* The answer of a device in Python to the committed exit. */
void dwc_engine_answer(struct dwc_engine *e, const uint8_t *data, uint64_t length)
{
	memcpy(e->inputs.io_data, data, length < DWC_IO_BYTES ? length : DWC_IO_BYTES);
}

/* A replica by its number. */
static struct dwc_replica *numbered(struct dwc_engine *e, int replica)
{
	DWC_ASSERT(e, replica == 0 || (replica == 1 && e->protects));
	return &e->replicas[replica];
}

/* On a visit at the start: finish the instruction of a pending exit, so that the replica is before the element's first instruction
 * and registers can be set. Returns 1 if that instruction exits once more: then there is no such point. */
static int job_enter(struct dwc_replica *r)
{
	int err = dwc_replica_feed_once(r);

	if (!err)
		err = dwc_replica_finish(r); /* needed also if only registers in the run page wait to be set */
	dwc_state_get_synced(r, &r->state);
	return err;
}

int dwc_engine_enter(struct dwc_engine *e, int replica)
{
	DWC_ASSERT(e, e->phase == DWC_PHASE_START_VISITED);
	return dwc_replica_call(numbered(e, replica), job_enter);
}

/* On a visit at the end: registers were changed, so read again what is compared. */
int dwc_engine_read_again(struct dwc_engine *e, int replica)
{
	struct dwc_replica *r = numbered(e, replica);

	DWC_ASSERT(e, e->phase == DWC_PHASE_BOTH_ENDED);
	if (e->checkpoint.due)
		return dwc_replica_read_state(r);
	dwc_state_get_synced(r, &r->state);
	return 0;
}

/* Bind the replica's thread to a CPU. */
int dwc_engine_move(struct dwc_engine *e, int replica, int cpu)
{
	numbered(e, replica)->cpu = cpu;
	return dwc_replica_call(numbered(e, replica), dwc_replica_pin);
}

static int job_run_for(struct dwc_replica *r)
{
	int err = job_enter(r);

	if (err)
		return err;
	dwc_inner_plan(r, DWC_NO_LIMIT, 0);
	dwc_counter_disarm(r); /* the budget is not of this run */
	r->started_ns = dwc_now_ns();
	err = dwc_replica_run(r, r->limit_ns);
	r->stage = DWC_STAGE_HAS_INPUTS;
	dwc_state_get_synced(r, &r->state);
	return err;
}

/* The same, and run `ns` nanoseconds into the element: DWC_RUN_TIME_LIMIT if it is not over then. The counts are void after it. */
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

void dwc_engine_request_attention(struct dwc_engine *e, int soon)
{
	if (soon)
		atomic_store(&e->requests.soon, 1);
	atomic_store(&e->requests.attention, 1);
	if (atomic_load(&e->requests.sleeping)) /* one side sees what the other has written before */
		syscall(SYS_futex, &e->requests.attention, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The guest has stood between two elements for that long, as the user wished: that is no guest time. The virtual clock has stood by
 * itself. */
void dwc_engine_stood(struct dwc_engine *e, uint64_t ns)
{
	if (e->clock.host_base_ns)
		e->clock.host_base_ns += ns;
	e->replicas[0].tsc_runs = 0; /* under `off` the TSC is set again, by the clock */
}
