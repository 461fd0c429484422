/* A recorded element is run again: from its inputs to where it ended, and compared with its sums there. */
#include "element/repeat.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>

#include "element/replay.h"
#include "element/rollback.h"
#include "element/run.h"
#include "element/settle.h"
#include "element/steps.h"
#include "element/stops.h"
#include "engine.h"
#include "host.h"
#include "memory/guard.h"
#include "memory/pages.h"
#include "phase.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/debug.h"
#include "vcpu/exit.h"
#include "vcpu/points.h"
#include "vcpu/state.h"

#define SPARE_NS 10000000000ull /* in case this machine is slower */
#define SPARE_TIMES 8
#define MOST_TICKS 64 /* runs again: an element that is as long as a tick meets one each time */
#define NEAR 1024 /* events: more than an overflow is late by, and than counts differ by */
#define FAR (64 * NEAR)
#define MOST_HITS (1u << 20) /* of a breakpoint: some seconds */

static int differs(struct dwc_engine *e, uint32_t part)
{
	e->replay.differs |= part;
	return DWC_REPLAY_DIFFERS;
}

/* Whether the last run has ended at a point. */
static int has_met(struct dwc_replica *a)
{
	if (a->exit.reason == KVM_EXIT_DEBUG)
		a->engine->points.hits |= dwc_points_in_dr6(a->engine, a->exit.info);
	return a->engine->points.hits != 0;
}

/* How long it may take to where the element ends, or from one hit of a breakpoint to the next. */
static uint64_t patience_ns(const struct dwc_recorded *x)
{
	return SPARE_NS + (x->ran_ns < SPARE_NS ? x->ran_ns : SPARE_NS) * SPARE_TIMES;
}

static int run_to_exit(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int end;

	dwc_counter_disarm(a);
	dwc_limit_set(a, patience_ns(x), 1);
	dwc_inner_plan(a, x->inner_exits + 1, 0);
	end = dwc_job_element(a);
	if (end == DWC_RUN_STOP_REQUESTED)
		return DWC_REPLAY_STOP_REQUESTED;
	if (end)
		return end < 0 ? end : differs(e, DWC_REPLAYED_HANG);
	return has_met(a) ? DWC_REPLAY_MET : 0;
}

static int run_steps(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int result = dwc_step_until(e, 0, x->distance, 0);

	if (result < 0)
		return result;
	if (e->points.hits)
		return DWC_REPLAY_MET;
	if (result || e->steps.done != x->distance)
		return differs(e, DWC_REPLAYED_STEPS);
	dwc_replica_ends_by(a, KVM_EXIT_INTR);
	return x->checkpoint ? dwc_replica_call(a, dwc_replica_read_state) : 0;
}

/* Compare memory, and the registers that are read at checkpoints only. */
static int compare_checkpoint(struct dwc_engine *e, const struct dwc_recorded_sums *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int err;

	if (dwc_state_sum_xsave(&a->state) != x->xsave)
		differs(e, DWC_REPLAYED_XSAVE);
	if (dwc_state_sum_msrs(&a->state) != x->msrs)
		differs(e, DWC_REPLAYED_MSRS);
	if (dwc_state_sum_others(&a->state) != x->others)
		differs(e, DWC_REPLAYED_OTHERS);
	if ((err = dwc_pages_harvest(a)))
		return err;
	dwc_pages_compare(e, 1);
	if (dwc_content_to_be(e) != x->memory)
		differs(e, DWC_REPLAYED_MEMORY);
	return 0;
}

/* Whether the VM is where the element was ended: all that was recorded agrees. Returns -errno, 1 or 0. */
int dwc_repeat_is_there(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int err;

	dwc_replica_ends_by(a, KVM_EXIT_INTR);
	if (dwc_recorded_registers(a) != x->registers)
		return 0;
	e->replay.differs = 0;
	err = dwc_replica_call(a, dwc_replica_read_state);
	err = err ? err : compare_checkpoint(e, &x->sums);
	return err ? err : !e->replay.differs;
}

/* Whether the VM has done nothing of the element yet, and an interrupt comes before its first instruction. Then it is not where the element
 * ended, even if that is where it began; and RF, to get past a breakpoint there, would be in the frame that the handler gets. */
static int is_before_interrupt(const struct dwc_engine *e)
{
	return e->replicas[0].stage == DWC_STAGE_AT_COMMITTED && (e->inputs.vector >= 0 || e->inputs.nmi);
}

/* From hit to hit of a breakpoint where the element ended, as alignment does: counts only tell when to give up. */
static int chase(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int end, there;

	for (uint32_t hits = 0; hits < MOST_HITS; hits++) {
		if (dwc_linear_rip(&a->state) == x->rip && !is_before_interrupt(e)) {
			if ((there = dwc_repeat_is_there(e, x)))
				return there < 0 ? there : 0;
			if (e->points.hits)
				return DWC_REPLAY_MET;
			dwc_resume_past(a);
		}
		a->started_ns = dwc_now_ns();
		if ((end = dwc_replica_run(a, patience_ns(x))) < 0)
			return end;
		if (end == DWC_RUN_STOP_REQUESTED)
			return DWC_REPLAY_STOP_REQUESTED;
		if (!end && has_met(a) && dwc_linear_rip(&a->state) != x->rip)
			return DWC_REPLAY_MET;
		if (end || !dwc_at_breakpoint(a))
			return differs(e, end == DWC_RUN_EXIT ? DWC_REPLAYED_EXIT : DWC_REPLAYED_REGISTERS);
	}
	return differs(e, DWC_REPLAYED_HANG);
}

static int run_near(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int end, err;

	dwc_inner_plan(a, DWC_NO_LIMIT, 0);
	if (!e->config.counting || x->distance <= 2 * NEAR) {
		err = dwc_replica_feed(a);
		dwc_state_get_synced(a, &a->state);
		dwc_counter_arm(a, 0);
		return err;
	}
	dwc_limit_set(a, patience_ns(x), 1);
	dwc_counter_arm(a, x->distance - NEAR);
	a->most_ns = 0;
	end = dwc_job_element(a);
	if (end == DWC_RUN_STOP_REQUESTED)
		return DWC_REPLAY_STOP_REQUESTED;
	if (end < 0)
		return end;
	if (end == DWC_RUN_EXIT && has_met(a))
		return DWC_REPLAY_MET;
	return end == DWC_RUN_COUNTER ? 0 : differs(e, DWC_REPLAYED_EXIT);
}

/* An element that the VMM has ended: run to where it ended from here, which is not behind that. In a loop in which the guest waits every
 * turn is the same, and the first one will do. */
static int run_to_point(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int err, result;

	if ((err = dwc_set_breakpoint(a, x->rip)))
		return err;
	result = chase(e, x);
	dwc_counter_disarm(a);
	err = dwc_set_breakpoint(a, 0);
	return err ? err : result;
}

/* The same from its start. */
static int run_near_and_to_point(struct dwc_engine *e, const struct dwc_recorded *x)
{
	int result = run_near(e, x);

	if (result)
		return result;
	if (e->config.counting && x->distance)
		dwc_counter_extend(&e->replicas[0], FAR);
	else
		dwc_counter_disarm(&e->replicas[0]);
	return run_to_point(e, x);
}

static int run_as_it_ended(struct dwc_engine *e, const struct dwc_recorded *x)
{
	switch (x->ended) {
	case DWC_ENDED_BY_STEPS:
		return run_steps(e, x);
	case DWC_ENDED_SETTLED:
		return dwc_run_settling(e);
	case DWC_ENDED_AT_POINT:
		return run_near_and_to_point(e, x);
	default:
		return run_to_exit(e, x);
	}
}

static int run_to_end(struct dwc_engine *e, const struct dwc_recorded *x)
{
	int err, result;

	dwc_set_phase(e, DWC_PHASE_RUNNING);
	if ((err = dwc_stops_arm(e, 1)))
		return err;
	result = run_as_it_ended(e, x);
	if ((err = dwc_stops_arm(e, 0)))
		return err;
	if (!result && e->phase == DWC_PHASE_RUNNING)
		dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return result;
}

/* From where a move within it has led (within.c), to a point or to its end. */
int dwc_repeat_rest(struct dwc_engine *e, const struct dwc_recorded *x)
{
	if (x->ended != DWC_ENDED_AT_POINT)
		return run_to_exit(e, x);
	dwc_counter_disarm(&e->replicas[0]);
	dwc_inner_plan(&e->replicas[0], DWC_NO_LIMIT, 0);
	return run_to_point(e, x);
}

/* Compare what the recording has of the element's end. */
static int compare(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int err;

	if (memcmp(&a->exit, x->exit, sizeof x->exit))
		differs(e, DWC_REPLAYED_EXIT);
	if (a->inner.count != x->inner_exits || a->inner.flow != x->flow)
		differs(e, DWC_REPLAYED_DEVICES);
	if (dwc_recorded_registers(a) != x->registers)
		differs(e, DWC_REPLAYED_REGISTERS);
	if (x->checkpoint && (err = compare_checkpoint(e, &x->sums)))
		return err;
	return e->replay.differs ? DWC_REPLAY_DIFFERS : 0;
}

/* After a difference, where the frozen TSC has ticked since the checkpoint: the guest may have read the time just then. Returns to the
 * start of the element, in phase `to`. 0: there was no tick, or there were too many. */
static int goes_back(struct dwc_engine *e, enum dwc_phase to)
{
	int result;

	if (!e->replay.tick_since || e->replay.tries == MOST_TICKS)
		return 0;
	e->replay.tries++;
	if (e->phase > DWC_PHASE_INPUTS_CHOSEN)
		dwc_set_phase(e, DWC_PHASE_DISCARDED);
	result = dwc_engine_rollback(e, 0, to);
	return result < 0 ? result : !result;
}

/* It meets a point: who asked for it goes there by moves within it. */
static int back_to_start(struct dwc_engine *e)
{
	int result;

	dwc_set_phase(e, DWC_PHASE_DISCARDED);
	result = dwc_engine_rollback(e, 0, DWC_PHASE_INPUTS_CHOSEN);
	if (result)
		return result < 0 ? result : -EIO;
	return DWC_REPLAY_MET;
}

/* Run an element again, whose inputs are chosen. Returns an enum dwc_replay_result or -errno. 0: it has ended as it was recorded. */
int dwc_repeat_element(struct dwc_engine *e, const struct dwc_recorded *x)
{
	int result, again;

	e->replay.tries = 0;
	do {
		e->replay.differs = 0;
		if (!(result = run_to_end(e, x)))
			result = compare(e, x);
		if (!result && dwc_stops_changed(e))
			result = DWC_REPLAY_MET;
		e->replay.tick_since |= e->replicas[0].tick_crossed;
		if (result == DWC_REPLAY_MET)
			return back_to_start(e);
		if (result != DWC_REPLAY_DIFFERS)
			return result;
	} while ((again = goes_back(e, DWC_PHASE_INPUTS_CHOSEN)) > 0);
	return again < 0 ? again : result;
}

/* Compare the last committed state, which was made a checkpoint. Returns as dwc_repeat_element() does. */
int dwc_repeat_checkpoint(struct dwc_engine *e, const struct dwc_recorded_sums *x)
{
	int again, err;

	e->replay.tries = 0;
	do {
		e->replay.differs = 0;
		if ((err = dwc_replica_call(&e->replicas[0], dwc_replica_read_state)) || (err = compare_checkpoint(e, x)))
			return err;
		if (!e->replay.differs)
			return 0;
	} while ((again = goes_back(e, DWC_PHASE_BETWEEN)) > 0);
	return again < 0 ? again : DWC_REPLAY_DIFFERS;
}
