/* An element was cut by its time limit, and the guest waits in a loop that changes no register. No counter is needed to end the element
 * there: whatever the turn of the loop, a few single steps lead one replica to the instruction at which the other one is. What the
 * guest computed before it came to the loop is kept. Equal registers and equal memory are the proof: a guest that counts in memory
 * does not wait, and its element is discarded like others that are cut. */
#include "element/loop.h"

#include <stdint.h>

#include "element/align.h"
#include "element/run.h"
#include "element/steps.h"
#include "engine.h"
#include "host.h"
#include "replica/clock.h"
#include "replica/inner.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "status.h"
#include "vcpu/state.h"

#define TURN_STEPS 64 /* instructions in a turn of the loop, at most */
#define FIRST_LOOK_NS 100000ull
#define MOST_MISSES 6 /* after n of them in a row, up to this many, 2^n - 1 waits are left out */

static int job_synced(struct dwc_replica *r)
{
	dwc_state_get_synced(r, &r->state);
	return 0;
}

/* Step B until all registers agree with A's. Right after an STI there is no such point: an interrupt shadow cannot be restored. */
static int step_to_a(struct dwc_engine *e)
{
	int err = dwc_replica_call_both(e, job_synced);

	if (err)
		return err;
	if (e->replicas[0].state.events.interrupt.shadow || dwc_cannot_be_recorded(&e->replicas[0]))
		return DWC_STEPS_DISCARDED;
	return dwc_step_to_a(e, TURN_STEPS);
}

/* Both were stopped: bring B to where A is. Returns an enum dwc_align_result or -errno. */
static int meet(struct dwc_engine *e)
{
	int result = step_to_a(e), agree = 0;

	if (result < 0 || (result == DWC_STEPS_DONE && (agree = dwc_agree(e)) < 0))
		return result < 0 ? result : agree;
	return agree ? DWC_ALIGN_MET : DWC_ALIGN_MISSED;
}

/* Whether it is to be tried this time: where it fails it does so mostly, since the guest counts in memory, or cannot be stepped. */
static int is_worth_it(struct dwc_engine *e)
{
	if (e->recorder.without_loops)
		return 0;
	if (!e->cut.left_out)
		return 1;
	e->cut.left_out--;
	return 0;
}

static int note(struct dwc_engine *e, int result)
{
	e->cut.meets = result == DWC_ALIGN_MET;
	if (e->cut.meets) {
		e->cut.misses = 0;
		e->clock.patience_factor = 1; /* a guest that waits needs no more time */
	} else if (result == DWC_ALIGN_MISSED) {
		e->cut.misses += e->cut.misses < MOST_MISSES;
		e->cut.left_out = (1u << e->cut.misses) - 1;
	}
	return result;
}

/* Both were cut. If both wait in a loop, bring them to one point in it. Returns an enum dwc_align_result or -errno. */
int dwc_loop_meet(struct dwc_engine *e)
{
	if (!dwc_waits_in_loop(&e->replicas[0]) || !dwc_waits_in_loop(&e->replicas[1]) || !is_worth_it(e))
		return DWC_ALIGN_MISSED;
	return note(e, meet(e));
}

static int job_run_on(struct dwc_replica *r)
{
	r->run->request_interrupt_window = (uint8_t)r->engine->inputs.window;
	r->started_ns = dwc_now_ns();
	return dwc_replica_run(r, r->limit_ns);
}

/* A was cut, and B has not run. If A waits in a loop, bring B to where it is. B need not run for as long as A: it is stopped now and then, and is
 * in the loop once it has registers that A was seen with, or a little after the time at which A was first seen there. Returns as dwc_loop_meet() does. */
int dwc_loop_follow(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	uint64_t after_ns = dwc_in_loop_after_ns(a), ran_ns = 0;
	int (*job)(struct dwc_replica *) = dwc_job_element, result, again;

	if (after_ns == UINT64_MAX || !is_worth_it(e))
		return DWC_ALIGN_MISSED;
	after_ns += after_ns / 4;
	dwc_limit_set(b, after_ns < FIRST_LOOK_NS ? after_ns : FIRST_LOOK_NS, 1);
	b->may_be_cut = 0;
	do {
		dwc_inner_plan(b, a->inner.count + 1, 0);
		if ((result = dwc_replica_call(b, job)) != DWC_RUN_TIME_LIMIT) /* with an exit it has come further than A */
			return result == DWC_RUN_STOP_REQUESTED ? DWC_ALIGN_STOP_REQUESTED : result < 0 ? result : note(e, DWC_ALIGN_MISSED);
		ran_ns += dwc_ran_ns(b);
		again = ran_ns < after_ns || ran_ns < dwc_ran_ns(a);
		result = DWC_ALIGN_MISSED;
		if (ran_ns >= after_ns || dwc_was_seen_like(a, b)) {
			result = meet(e);
			again = again && result == DWC_ALIGN_MISSED && e->steps.done == TURN_STEPS;
		}
		b->limit_ns = ran_ns;
		job = job_run_on;
	} while (again);
	return note(e, result);
}
