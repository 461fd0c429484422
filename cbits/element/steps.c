/* Single steps: to end an element without a counter, to go to a point in it, and to bring two replicas to the same instruction. */
#include "element/steps.h"

#include <linux/kvm.h>

#include "assertion.h"
#include "element/commit.h"
#include "element/inplace.h"
#include "engine.h"
#include "host.h"
#include "memory/pages.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/debug.h"
#include "vcpu/insn.h"
#include "vcpu/points.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"

#define STEP_LIMIT_NS 1000000000ull
#define LONGEST_PUSH 8 /* bytes that an instruction pushes at most, unless it raises an exception */

/* Whether the next instruction behaves differently under single steps, or reads a value of the host. */
static int must_stop(const struct dwc_insn *insn)
{
	return !dwc_can_step(insn) || dwc_reads_host(insn);
}

/* Whether an exception pushed RFLAGS with TF: at least five words, which no branch pushes. */
static int took_exception(const struct dwc_replica *r, uint64_t rip, uint64_t rsp)
{
	const struct kvm_regs *regs = &r->state.regs;
	int jumped = regs->rip < rip || regs->rip > rip + DWC_LONGEST_INSTRUCTION;

	return jumped && regs->rsp + LONGEST_PUSH < rsp;
}

/* Execute one instruction. Returns 1 if it ended in a debug exception, 0 if in anything else, or -errno. */
static int step(struct dwc_replica *r)
{
	uint64_t rip = r->state.regs.rip, rsp = r->state.regs.rsp;
	struct dwc_step step;
	int end, err;

	/* switched on each time: POPF, IRET and exceptions of the guest switch it off */
	if ((err = dwc_set_stepping(r, 1)) || (err = dwc_begin_step(r, &step)))
		return err;
	r->started_ns = dwc_now_ns();
	if ((end = dwc_replica_run(r, STEP_LIMIT_NS)) < 0)
		return end;
	if ((err = dwc_end_step(r, &step)))
		return err;
	if (!r->engine->protects) /* dwc_replica_run() has left them in the run page */
		dwc_state_get_synced(r, &r->state);
	return end == DWC_RUN_EXIT && r->exit.reason == KVM_EXIT_DEBUG && !(r->engine->protects && took_exception(r, rip, rsp));
}

/* Note a debugger's points that the step has met. Returns whether there are any. */
static int meets_points(struct dwc_replica *r)
{
	struct dwc_points *points = &r->engine->points;

	points->hits |= dwc_points_in_dr6(r->engine, r->exit.info) | dwc_points_at(r);
	return points->hits != 0;
}

/* An element may end anywhere, except right after an STI. */
static int step_on(struct dwc_replica *r, struct dwc_steps *s)
{
	struct dwc_insn insn;
	int after_sti = 0, met = 0, went;

	for (s->done = 0; (s->done < s->limit && !met) || after_sti; s->done++) {
		if (s->done) { /* the first step may only finish an instruction whose exit has been answered */
			if ((s->to_interruptible || r->engine->inputs.window) && r->run->ready_for_interrupt_injection)
				return DWC_STEPS_DONE; /* with a window requested the element would end here */
			dwc_insn_at(r, dwc_linear_rip(&r->state), &insn);
			if (must_stop(&insn))
				return after_sti ? DWC_STEPS_DISCARDED : DWC_STEPS_DONE;
			after_sti = insn.kind == DWC_INSN_STI && !r->engine->replay.moves; /* moves end no element */
		}
		if ((went = step(r)) <= 0)
			return went < 0 ? went : DWC_STEPS_DISCARDED;
		met = r->engine->points.count && meets_points(r);
	}
	return DWC_STEPS_DONE;
}

/* In a replay the element has an end already. */
static uint32_t inner_limit(const struct dwc_replica *r)
{
	const struct dwc_engine *e = r->engine;

	if (e->config.strategy != DWC_REPLAY)
		return DWC_NO_LIMIT;
	/* an exit can hide the debug exception of its step: so moves stop there. Recorded steps were counted with that */
	return (e->replay.moves && e->replay.expected.ended != DWC_ENDED_BY_STEPS ? r->inner.count : e->replay.expected.inner_exits) + 1;
}

static int job_step_until(struct dwc_replica *r)
{
	int err, result;

	dwc_counter_disarm(r);
	if ((err = dwc_replica_feed_once(r)))
		return err;
	dwc_inner_plan(r, inner_limit(r), 0);
	dwc_state_get_synced(r, &r->state); /* the inputs can have set registers, and that can be all of the element */
	r->started_ns = r->ended_ns = dwc_now_ns();
	r->run->request_interrupt_window = 0;
	result = step_on(r, &r->engine->steps);
	r->run->request_interrupt_window = (uint8_t)r->engine->inputs.window; /* it can run on from here, as the other one runs */
	r->stage = DWC_STAGE_HAS_INPUTS;
	err = dwc_set_stepping(r, 0);
	return err ? err : result;
}

/* Step a replica that is at the last committed state, or has its inputs, by `limit` instructions, or to the first one that cannot be
 * stepped; 0: only give it its inputs. Returns an enum dwc_steps_result or -errno. DONE: steps.done instructions were executed, and an
 * element may end there. DISCARDED: the replica's state is undefined, and a rollback has to follow. The counts of the progress counter
 * are void. */
int dwc_step_until(struct dwc_engine *e, int replica, uint64_t limit, int to_interruptible)
{
	enum dwc_activity before;
	int result;

	DWC_ASSERT(e, e->replicas[replica].stage <= DWC_STAGE_HAS_INPUTS);
	e->steps = (struct dwc_steps){ .limit = limit, .to_interruptible = to_interruptible };
	/* delivering the interrupt would push TF with the interrupted RFLAGS; behind a move of a replay it has been delivered */
	if (e->inputs.vector >= 0 && !(e->replay.moves && e->replicas[replica].stage == DWC_STAGE_HAS_INPUTS))
		return DWC_STEPS_DISCARDED;
	e->slice.counts_void = 1;
	before = dwc_enter(&e->replicas[0], DWC_AT_STEPS);
	result = dwc_replica_call(&e->replicas[replica], job_step_until);
	dwc_leave(&e->replicas[0], before);
	return result;
}

/* One run has nothing to be compared with. What has ended its steps, if it is no debug exception, ends the element. */
static int commit_unprotected(struct dwc_engine *e, int result)
{
	if (result == DWC_STEPS_DONE)
		return dwc_engine_commit_stepped(e, KVM_EXIT_INTR);
	dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return result;
}

static int step_both(struct dwc_engine *e, uint64_t limit, int to_interruptible)
{
	int in_place = e->vms == 1, result;
	uint64_t first;

	e->points.hits = 0;
	result = dwc_step_until(e, 0, limit, to_interruptible);
	if (!e->protects && result >= 0)
		return commit_unprotected(e, result);
	if (result)
		return result;
	first = e->steps.done;
	if (in_place && ((result = dwc_pages_harvest(&e->replicas[0])) || (result = dwc_inplace_rewind(e))))
		return result;
	if ((result = dwc_step_until(e, !in_place, first, to_interruptible)))
		return result;
	if (e->steps.done != first)
		return DWC_STEPS_DISCARDED;
	result = dwc_engine_commit_stepped(e, KVM_EXIT_INTR);
	return result == DWC_COMMIT_DIVERGED ? DWC_STEPS_DISCARDED : result;
}

/* An element by single steps: step both replicas from the last committed state to the same point, as dwc_step_until() does, compare
 * and commit. Returns an enum dwc_steps_result or -errno. DONE: committed, with steps.done instructions. DISCARDED: not committed, and
 * a rollback has to follow. */
int dwc_step_element(struct dwc_engine *e, uint64_t limit, int to_interruptible)
{
	enum dwc_activity before = dwc_enter(&e->replicas[0], DWC_AT_STEPS);
	int result = step_both(e, limit, to_interruptible);

	dwc_leave(&e->replicas[0], before);
	return result;
}

static int job_step_together(struct dwc_replica *r)
{
	struct dwc_engine *e = r->engine;
	int err, went = 1, met = 0;

	r->run->request_interrupt_window = 0;
	dwc_inner_plan(r, DWC_NO_LIMIT, 0);
	for (uint64_t i = 0; i < e->steps.limit && !met; i++) {
		struct dwc_insn insn;

		dwc_insn_at(r, dwc_linear_rip(&r->state), &insn);
		if (must_stop(&insn) || (went = step(r)) <= 0)
			break;
		e->steps.done++;
		met = !dwc_state_compare_synced(&e->replicas[0].state, &e->replicas[1].state, &e->stats);
	}
	err = dwc_set_stepping(r, 0);
	if (err || went < 0)
		return err ? err : went;
	return met ? DWC_STEPS_DONE : DWC_STEPS_DISCARDED;
}

/* The replicas have ended at different instructions, and it is not known which one is lagging: step A, then B twice as far, until all
 * their registers agree. In place only e2 can be stepped, since the VM has run it last. Returns an enum dwc_steps_result or -errno.
 * DONE: the registers agree; memory still has to be compared, as at any end. DISCARDED: no common point was found. */
int dwc_step_together(struct dwc_engine *e, uint64_t limit)
{
	enum dwc_activity before = dwc_enter(&e->replicas[0], DWC_AT_STEPS);
	int result = DWC_STEPS_DISCARDED;

	e->slice.counts_void = 1;
	e->steps = (struct dwc_steps){ 0 };
	for (int i = 0; i < e->vms && result == DWC_STEPS_DISCARDED; i++) {
		e->steps.limit = limit << i;
		result = dwc_replica_call(&e->replicas[i], job_step_together);
	}
	dwc_leave(&e->replicas[0], before);
	return result;
}

/* A stands, and B may be at the same point of a loop: step B until all registers agree. Returns as dwc_step_together() does; with
 * steps.done == limit B can run on from where it is. */
int dwc_step_to_a(struct dwc_engine *e, uint64_t limit)
{
	enum dwc_activity before;
	int result;

	e->slice.counts_void = 1;
	e->steps = (struct dwc_steps){ .limit = limit };
	if (!dwc_state_compare_synced(&e->replicas[0].state, &e->replicas[1].state, &e->stats))
		return DWC_STEPS_DONE;
	before = dwc_enter(&e->replicas[0], DWC_AT_STEPS);
	result = dwc_replica_call(&e->replicas[1], job_step_together);
	dwc_leave(&e->replicas[0], before);
	return result;
}
