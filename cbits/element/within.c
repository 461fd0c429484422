/* Moves within a recorded element, from its start on. They lead to the same instruction each time they are made, so a place within an element
 * is named by the moves that lead there; a rollback leads back to its start. Nothing is compared, but that the element can end only where
 * it did. */
#include "element/within.h"

#include <linux/kvm.h>
#include <string.h>

#include "assertion.h"
#include "element/repeat.h"
#include "element/run.h"
#include "element/steps.h"
#include "element/stops.h"
#include "engine.h"
#include "phase.h"
#include "replica/inner.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/debug.h"
#include "vcpu/insn.h"
#include "vcpu/points.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"

#define LIMIT_NS 100000000000ull

/* Before a move. The exit at which the last one has ended is answered. */
static void set_out(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0];

	DWC_ASSERT(e, e->phase == DWC_PHASE_INPUTS_CHOSEN || e->phase == DWC_PHASE_START_VISITED);
	if (e->phase == DWC_PHASE_INPUTS_CHOSEN)
		dwc_set_phase(e, DWC_PHASE_START_VISITED);
	if (dwc_stands_at_exit(e))
		dwc_inner_go_on(a);
	dwc_counter_disarm(a);
}

/* After a run that was to end elsewhere: whether it has ended with the element. */
static int has_ended(struct dwc_engine *e)
{
	const struct dwc_recorded *x = &e->replay.expected;
	const struct dwc_replica *a = &e->replicas[0];

	return x->ended == DWC_ENDED_NATURALLY && !memcmp(&a->exit, x->exit, sizeof x->exit) && a->inner.count == x->inner_exits ?
		       DWC_WITHIN_OVER : DWC_WITHIN_STUCK;
}

/* The same after a single step. */
static int has_ended_or_stopped(struct dwc_engine *e)
{
	int result = has_ended(e);

	return result == DWC_WITHIN_STUCK && dwc_stands_at_exit(e) ? DWC_WITHIN_AT_EXIT : result;
}

static int can_step(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0];
	struct dwc_insn insn;

	if (!dwc_is_fresh(e)) /* the rest of an instruction, but an interrupt would show the trap flag */
		return a->stage != DWC_STAGE_AT_COMMITTED || (e->inputs.vector < 0 && !e->inputs.nmi && !e->inputs.settles);
	dwc_insn_at(a, dwc_linear_rip(&a->state), &insn);
	return dwc_can_step(&insn) && !dwc_reads_host(&insn);
}

/* Up to `limit` instructions in one go. */
static int step_some(struct dwc_engine *e, uint64_t limit)
{
	const struct dwc_recorded *x = &e->replay.expected;
	struct dwc_replica *a = &e->replicas[0];
	int result;

	e->replay.moves = 1;
	result = dwc_step_until(e, 0, x->ended == DWC_ENDED_AT_POINT ? 1 : limit, 0);
	e->replay.moves = 0;
	if (result < 0)
		return result;
	if (result)
		return has_ended_or_stopped(e);
	if (e->points.hits)
		return DWC_WITHIN_MET;
	if (x->ended != DWC_ENDED_AT_POINT || dwc_linear_rip(&a->state) != x->rip || !(result = dwc_repeat_is_there(e, x)))
		return DWC_WITHIN_DONE;
	return result < 0 ? result : DWC_WITHIN_OVER;
}

/* Inner exits up to here, one at which the VM stands included. */
uint32_t dwc_within_exits(const struct dwc_engine *e)
{
	const struct dwc_replica *a = &e->replicas[0];

	return a->stage == DWC_STAGE_AT_COMMITTED ? 0 : a->inner.count + (uint32_t)dwc_stands_at_exit(e);
}

/* Execute up to `limit` instructions, to the first point or inner exit. steps.done says how many. Returns an enum dwc_within_result or -errno. */
int dwc_within_step(struct dwc_engine *e, uint64_t limit)
{
	int err, result = can_step(e) ? DWC_WITHIN_DONE : DWC_WITHIN_STUCK;
	uint64_t done = 0;

	e->steps.done = 0;
	if (result)
		return result;
	set_out(e);
	if ((err = dwc_stops_arm(e, 1)))
		return err;
	while (!result && done < limit) {
		if (done && !can_step(e)) {
			e->steps.done = 0;
			result = DWC_WITHIN_STUCK;
		} else {
			result = step_some(e, limit - done);
		}
		done += e->steps.done;
	}
	e->steps.done = done;
	e->replicas[0].stage = DWC_STAGE_HAS_INPUTS;
	err = dwc_stops_arm(e, 0);
	return err ? err : result;
}

/* Past an instruction at which there is a point, if the VM stands before one. */
static int leave_point(struct dwc_engine *e)
{
	if (!dwc_stands_at_point(e))
		return 0;
	if (!e->replay.resumes)
		return dwc_within_step(e, 1);
	dwc_resume_past(&e->replicas[0]);
	return 0;
}

/* Run to the next point, or to the element's end. */
static int run(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0];
	int result = leave_point(e), err;

	if (result)
		return result;
	set_out(e);
	if ((err = dwc_replica_call(a, dwc_replica_feed_once)))
		return err;
	dwc_state_get_synced(a, &a->state);
	if ((err = dwc_stops_arm(e, 1)))
		return err;
	result = dwc_repeat_rest(e, &e->replay.expected);
	a->stage = DWC_STAGE_HAS_INPUTS;
	if ((err = dwc_stops_arm(e, 0)))
		return err;
	switch (result) {
	case DWC_REPLAY_MET:
		return DWC_WITHIN_MET;
	case DWC_REPLAY_STOP_REQUESTED:
		return DWC_WITHIN_STOP_REQUESTED;
	default:
		return result < 0 ? result : DWC_WITHIN_OVER;
	}
}

/* Run to the next point after `skip` others, by debug registers. A point at which the VM stands already does not count. Returns an enum
 * dwc_within_result or -errno; points.hits: which it has met; steps.done: how many it has met before the end. */
int dwc_within_run(struct dwc_engine *e, uint32_t skip)
{
	uint32_t met = 0;
	int result;

	do
		result = run(e);
	while (result == DWC_WITHIN_MET && met++ < skip);
	e->steps.done = met;
	return result;
}

static int run_freely(struct dwc_engine *e, uint32_t inner_limit)
{
	struct dwc_replica *a = &e->replicas[0];
	int end;

	dwc_limit_set(a, LIMIT_NS, 1);
	dwc_inner_plan(a, inner_limit, 0);
	end = dwc_replica_call(a, dwc_job_element);
	a->stage = DWC_STAGE_HAS_INPUTS;
	return end;
}

/* Run to this inner exit, counted from 1 and from the element's start. It is not answered yet. Returns as dwc_within_run() does. */
int dwc_within_to_exit(struct dwc_engine *e, uint32_t number)
{
	const struct dwc_replica *a = &e->replicas[0];
	int end;

	set_out(e);
	if ((end = run_freely(e, number)) < 0)
		return end;
	if (end == DWC_RUN_STOP_REQUESTED)
		return DWC_WITHIN_STOP_REQUESTED;
	return !end && dwc_stands_at_exit(e) && a->inner.count + 1 == number ? DWC_WITHIN_DONE : DWC_WITHIN_STUCK;
}

/* Let the guest run over an interrupt or an instruction that cannot be stepped, to one of the instructions to which that leads, by
 * debug registers, or to the next inner exit. Returns as dwc_within_run() does. */
int dwc_within_pass(struct dwc_engine *e, const struct dwc_point *targets, uint32_t count)
{
	struct dwc_points before = e->points;
	uint32_t inner_limit = dwc_within_exits(e) + 1;
	int stops = e->replay.stops, err, end;

	set_out(e);
	dwc_stops_set(e, targets, count, 1);
	if ((err = dwc_stops_arm(e, 1)))
		return err;
	end = run_freely(e, inner_limit);
	if (!end && e->replicas[0].exit.reason == KVM_EXIT_DEBUG && dwc_points_in_dr6(e, e->replicas[0].exit.info))
		end = DWC_WITHIN_MET;
	err = dwc_stops_arm(e, 0);
	e->points = before;
	e->replay.stops = stops;
	if (err || end < 0)
		return err ? err : end;
	if (end == DWC_RUN_STOP_REQUESTED)
		return DWC_WITHIN_STOP_REQUESTED;
	return end == DWC_WITHIN_MET ? DWC_WITHIN_DONE : has_ended_or_stopped(e);
}
