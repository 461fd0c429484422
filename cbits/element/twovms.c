/* Strategies sequential and parallel: a VM for each run, and bringing both to a common end. */
#include "element/twovms.h"

#include <linux/kvm.h>
#include <stdint.h>

#include "element/align.h"
#include "element/loop.h"
#include "element/run.h"
#include "element/slice.h"
#include "engine.h"
#include "memory/pages.h"
#include "phase.h"
#include "replica/clock.h"
#include "replica/inner.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "status.h"
#include "vcpu/exit.h"

#define DOUBTS_FROM 4 /* patience factor of a cut run, from which on it may be the replica's own fault that it does not end */

static void plan(struct dwc_engine *e)
{
	uint64_t limit_ns = e->config.counting ? 0 : dwc_time_limit(e, &e->pc, e->clock.guest_ns);

	dwc_slice_plan(e);
	for (int i = 0; i < 2; i++) {
		dwc_limit_set(&e->replicas[i], limit_ns, e->clock.stretch);
		dwc_inner_plan(&e->replicas[i], e->inner_limit, e->config.slice_ns);
	}
}

static int align(struct dwc_engine *e, int first, int second)
{
	if (first && second)
		return dwc_align(e);
	return dwc_align_to_natural(&e->replicas[!first], e->slice.budget + DWC_LEAST_BUDGET);
}

/* What an enum dwc_align_result, or -errno, means for the element. If they have met all state agrees, and that is its end. */
static int stop_of_align(struct dwc_engine *e, int status)
{
	switch (status) {
	case DWC_ALIGN_MET:
		for (int i = 0; i < 2; i++)
			dwc_replica_ends_by(&e->replicas[i], KVM_EXIT_INTR);
		dwc_set_phase(e, DWC_PHASE_COMPARED);
		return 0;
	case DWC_ALIGN_NATURAL:
		dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
		return dwc_replica_call_both(e, dwc_pages_harvest);
	case DWC_ALIGN_MISSED:
		e->divergence.groups = DWC_DIFF_HANG;
		return DWC_STOP_DIVERGED;
	case DWC_ALIGN_STOP_REQUESTED:
		return DWC_STOP_REQUESTED;
	default:
		return status;
	}
}

/* The runs were cut, this one in the fewest inner exits. If the guest waits in a loop the element can end there. */
static int cut(struct dwc_engine *e, struct dwc_replica *r, int (*meet_in_loop)(struct dwc_engine *))
{
	uint64_t ended_ns = r->ended_ns, started_ns = r->started_ns;
	int status = meet_in_loop(e);

	/* the time to get to the common point is not guest time */
	r->ended_ns = ended_ns;
	r->started_ns = started_ns;
	return status == DWC_ALIGN_MISSED ? dwc_cut(e, r) : stop_of_align(e, status);
}

/* At least one run was ended by its counter: bring both to the same point. */
static int meet(struct dwc_engine *e, int first, int second)
{
	struct dwc_replica *a = &e->replicas[0];
	uint64_t ended_ns = a->ended_ns, started_ns = a->started_ns;
	enum dwc_activity before;
	int status;

	if (!e->slice.counts_void)
		dwc_slice_measure(e);
	e->slice.counts_void = 1;
	before = dwc_enter(a, DWC_AT_ALIGNMENT);
	status = align(e, first, second);
	dwc_leave(a, before);
	/* the time to get to the common point is not guest time */
	a->ended_ns = ended_ns;
	a->started_ns = started_ns;
	return stop_of_align(e, status);
}

/* A replica runs on, and the other one has ended: that is time of its run. */
static enum dwc_activity enter_run_of(const struct dwc_replica *r)
{
	return dwc_enter(&r->engine->replicas[0], r->index ? DWC_AT_SECOND_RUN : DWC_AT_FIRST_RUN);
}

/* A replica that has stopped at an exit, which could be an inner one, goes on if the other one has had more inner exits. Under
 * parallel each stops by its own clock. Returns how its run has ended now. */
static int even_out(struct dwc_replica *r, int its_end, int others_end)
{
	struct dwc_engine *e = r->engine;
	const struct dwc_replica *other = &e->replicas[!r->index];
	enum dwc_activity before;

	if (its_end != DWC_RUN_EXIT || !r->inner.stopped || r->inner.count >= other->inner.count || others_end < 0)
		return its_end;
	before = enter_run_of(r);
	its_end = dwc_run_on(r, others_end == DWC_RUN_EXIT ? dwc_inner_limit_to_meet(other) : DWC_NO_LIMIT);
	dwc_leave(&e->replicas[0], before);
	return its_end;
}

/* Both runs have ended, each with an enum dwc_run_end or -errno. */
static int end(struct dwc_engine *e, int first, int second)
{
	enum dwc_activity before;
	int stop = 0;

	if (e->replicas[0].inner.count < e->replicas[1].inner.count)
		first = even_out(&e->replicas[0], first, second);
	else
		second = even_out(&e->replicas[1], second, first);
	if (first < 0 || second < 0)
		return first < 0 ? first : second;
	if (first == DWC_RUN_STOP_REQUESTED || second == DWC_RUN_STOP_REQUESTED)
		return DWC_STOP_REQUESTED;
	dwc_slice_note(e);
	if (first == DWC_RUN_EXIT)
		dwc_limit_was_kept(&e->replicas[0]);
	if (first == DWC_RUN_COUNTER || second == DWC_RUN_COUNTER)
		return meet(e, first, second);
	if (first == DWC_RUN_TIME_LIMIT && second == DWC_RUN_TIME_LIMIT)
		return cut(e, e->replicas[0].inner.count < e->replicas[1].inner.count ? &e->replicas[0] : &e->replicas[1], dwc_loop_meet);
	if (first || second) {
		before = enter_run_of(&e->replicas[!first]);
		stop = dwc_extend(e, &e->replicas[!first]);
		dwc_leave(&e->replicas[0], before);
	}
	if (!stop)
		dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return stop;
}

/* A was cut, and does not wait in a loop. Mostly the guest computes; but if A has a fault in its code that nothing has found, it would
 * go round for ever. So B gets a part of A's time now and then: if it comes to an exit that A has not come to, A hangs. */
static int cut_in_doubt(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	int second;

	dwc_limit_set(b, a->limit_ns / DOUBTS_FROM, 1);
	dwc_inner_plan(b, a->inner.count + 1, 0);
	b->may_be_cut = 0;
	second = dwc_replica_call(b, dwc_job_element);
	return second == DWC_RUN_TIME_LIMIT ? dwc_cut(e, a) : end(e, DWC_RUN_TIME_LIMIT, second);
}

int dwc_run_sequential(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	int first, second;

	plan(e);
	dwc_account(e, DWC_AT_FIRST_RUN);
	first = dwc_replica_call(a, dwc_job_element);
	dwc_account(e, DWC_AT_SECOND_RUN);
	if (first == DWC_RUN_TIME_LIMIT && e->clock.patience_factor >= DOUBTS_FROM && !dwc_waits_in_loop(a))
		return cut_in_doubt(e);
	if (first == DWC_RUN_TIME_LIMIT)
		return cut(e, a, dwc_loop_follow);
	if (first && first != DWC_RUN_COUNTER)
		return dwc_stop_of(first);
	if (first && e->slice.arm) /* so that e2 is likely to end where e1 did */
		e->slice.budget = dwc_budget_to_end_at(e, a->count);
	dwc_inner_plan(b, first ? DWC_NO_LIMIT : a->inner.count + 1, 0);
	b->may_be_cut = 0; /* its end is known */
	second = dwc_replica_call(b, dwc_job_element);
	return end(e, first, second);
}

int dwc_run_parallel(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	int first, second;

	plan(e);
	dwc_account(e, DWC_AT_HANDOVER);
	dwc_replica_post(b, dwc_job_element);
	dwc_account(e, DWC_AT_FIRST_RUN);
	first = dwc_job_element(a);
	dwc_account(e, DWC_AT_SECOND_RUN);
	second = dwc_replica_wait(b);
	dwc_account_from(e, DWC_AT_HANDOVER, b->ended_ns);
	return end(e, first, second);
}
