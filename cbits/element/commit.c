/* The end of an element: compare both replicas, and make their state the checkpoint or log the element. */
#include "element/commit.h"

#include "assertion.h"
#include "engine.h"
#include "memory/dma.h"
#include "memory/guard.h"
#include "memory/pages.h"
#include "phase.h"
#include "record/record.h"
#include "replica/clock.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "status.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

/* The guest time that the element of a replica took. */
static uint64_t element_ns(const struct dwc_replica *r)
{
	return dwc_ran_ns(r) / r->engine->config.clock_divisor;
}

/* Whether memory is to be compared now: at each checkpoint, and when elements together have taken some time. What leaves the
 * machine is in the exit, which is compared at every element; until memory is compared, a rollback can restore it. */
int dwc_memory_due(const struct dwc_replica *r)
{
	const struct dwc_engine *e = r->engine;

	return e->checkpoint.due || e->log.unseen_ns + element_ns(r) >= e->config.memory_every_ns;
}

static int compare(struct dwc_engine *e, int all)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	int err;

	e->divergence.groups = dwc_same_exit(&a->exit, &b->exit) ? 0 : DWC_DIFF_EXIT;
	e->divergence.groups |= dwc_inner_same(a, b) ? 0 : DWC_DIFF_DEVICES;
	e->divergence.groups |= (all ? dwc_state_compare : dwc_state_compare_synced)(&a->state, &b->state, &e->stats);
	if (!all && !e->divergence.groups && !dwc_memory_due(a)) {
		e->log.unseen_ns += element_ns(a);
		return 0;
	}
	for (int i = 0; i < 2; i++) /* read the logs also after a difference, for its record */
		if (e->replicas[i].stage != DWC_STAGE_HARVESTED && (err = dwc_pages_harvest(&e->replicas[i])))
			return err;
	e->divergence.groups |= dwc_pages_compare(e, all);
	e->log.unseen_ns = 0;
	return e->divergence.groups ? DWC_COMMIT_DIVERGED : DWC_COMMIT_DONE;
}

/* Make this state the checkpoint. Both replicas are at `exit`, and all groups have been compared. Pages come first: they can
 * still turn out to differ, and then a rollback needs the old checkpoint. */
int dwc_take_checkpoint(struct dwc_engine *e, const struct dwc_exit *exit)
{
	int err = dwc_pages_commit(e);

	if (err)
		return err;
	e->checkpoint.state = e->replicas[0].state;
	dwc_copy_exit(&e->checkpoint.exit, exit);
	e->checkpoint.sum = dwc_checkpoint_sum(e);
	e->log.count = 0;
	e->log.ticked = 0;
	return 0;
}

/* Whether the frozen TSC has ticked since the checkpoint: then the replicas may have read different times. */
int dwc_has_ticked(const struct dwc_engine *e)
{
	return e->log.ticked || e->replicas[0].tick_crossed || e->replicas[1].tick_crossed;
}

/* Log this element, which is no checkpoint. Both replicas are at its end. */
void dwc_log_element(struct dwc_engine *e)
{
	const struct dwc_replica *a = &e->replicas[0];
	struct dwc_logged *to = &e->log.entries[e->log.count];

	DWC_ASSERT(e, e->log.count < DWC_LOG_ELEMENTS);
	dwc_copy_inputs(e, &to->inputs, &e->inputs);
	dwc_copy_exit(&to->exit, &a->exit);
	to->inner.count = a->inner.count;
	to->inner.flow = a->inner.flow;
	to->inner.now_ns = e->clock.guest_ns;
	if (a->inner.count)
		dwc_pc_copy(&to->inner.pc, &e->pc);
	to->ran_ns = dwc_ran_ns(a);
	to->sum = dwc_logged_sum(to, &e->exit);
	e->log.count++;
	e->log.ticked = dwc_has_ticked(e);
	dwc_state_get_synced(&e->replicas[0], &e->log.committed);
}

/* Compare both replicas. If they are equal the element becomes the checkpoint, or is logged. */
static int compare_commit(struct dwc_engine *e)
{
	const struct dwc_exit *exit = &e->replicas[0].exit;
	const struct dwc_inner *inner = &e->replicas[0].inner;
	int waits = !dwc_returnable(exit, inner->count ? &inner->before : &e->exit) && e->vms == 2 && e->log.count < DWC_LOG_ELEMENTS;
	/* If the frozen TSC ticked both may have read the new time, which a replay might not: make it a checkpoint as soon as possible */
	int all = ((e->checkpoint.due || dwc_has_ticked(e) || dwc_is_doorbell(exit)) && !waits) || !dwc_replayable(exit), err;

	if (e->phase == DWC_PHASE_COMPARED)
		return dwc_take_checkpoint(e, exit);
	if (all && !e->checkpoint.due && (err = dwc_replica_call_both(e, dwc_replica_read_state)))
		return err;
	if ((err = compare(e, all)))
		return err;
	if (all)
		return dwc_take_checkpoint(e, exit);
	dwc_log_element(e);
	return 0;
}

/* The guest clock moves between elements only. */
void dwc_advance_clock(struct dwc_engine *e, uint64_t ran_ns)
{
	uint64_t devices_ns = e->clock.guest_ns + dwc_inner_ns(&e->replicas[0]), now_ns = dwc_clock_after(e, ran_ns);

	e->clock.guest_ns = now_ns > devices_ns || !e->protects ? now_ns : devices_ns;
}

/* The element's end, which has been found right, is the last committed state from now on. */
void dwc_element_over(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0];

	e->checkpoint.due = e->log.count + 1 >= e->config.checkpoint_every;
	dwc_copy_exit(&e->exit, &a->exit);
	e->has_pending_io = dwc_finishes_later(e, &a->exit);
	dwc_advance_clock(e, dwc_ran_ns(a));
	dwc_inner_commit(e);
	e->replicas[0].stage = e->replicas[1].stage = DWC_STAGE_AT_COMMITTED;
	dwc_set_phase(e, DWC_PHASE_BETWEEN);
	e->stats.committed++;
	e->stats.by_end[a->exit.reason & 63]++;
	e->inputs.answer = DWC_ANSWER_IO;
}

static int commit(struct dwc_engine *e, enum dwc_recorded_end ended, uint64_t steps)
{
	int err;

	DWC_ASSERT(e, e->phase == DWC_PHASE_BOTH_ENDED || e->phase == DWC_PHASE_COMPARED);
	if (e->protects && (err = compare_commit(e))) {
		e->inner_limit = dwc_inner_limit_of_both(e); /* a restart ends at the same exit, so that it can be compared */
		dwc_set_phase(e, DWC_PHASE_DISCARDED);
		return err;
	}
	dwc_record_element(e, ended, steps);
	dwc_element_over(e);
	return 0;
}

/* Commit an element that is over, in phase BOTH_ENDED or COMPARED. Returns an enum dwc_commit_result or -errno. */
int dwc_engine_commit(struct dwc_engine *e)
{
	/* nothing but the VMM ends a run with this reason. A settling element that meets another exit is one that a run meets, too */
	if (e->replicas[0].exit.reason != KVM_EXIT_INTR)
		return commit(e, DWC_ENDED_NATURALLY, 0);
	return commit(e, e->inputs.settles ? DWC_ENDED_SETTLED : DWC_ENDED_AT_POINT, 0);
}

/* Commit where single steps have brought both replicas, as an end by `reason` (KVM_EXIT_*). */
int dwc_engine_commit_stepped(struct dwc_engine *e, uint32_t reason)
{
	enum dwc_activity before = dwc_enter(&e->replicas[0], DWC_AT_COMPARE_COMMIT);
	int result;

	for (int i = 0; i < 2; i++)
		dwc_replica_ends_by(&e->replicas[i], reason);
	dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	/* at a window the run has come to its end, or near it, by itself */
	result = commit(e, reason == KVM_EXIT_INTR ? DWC_ENDED_BY_STEPS : DWC_ENDED_NATURALLY, e->steps.done);
	dwc_leave(&e->replicas[0], before);
	return result;
}

static int checkpoint(struct dwc_engine *e)
{
	int err;

	DWC_ASSERT(e, e->replicas[0].stage == DWC_STAGE_AT_COMMITTED && e->replicas[1].stage == DWC_STAGE_AT_COMMITTED);
	if ((err = dwc_replica_call_both(e, dwc_replica_read_state)) || (err = compare(e, 1)))
		return err;
	return dwc_take_checkpoint(e, &e->exit);
}

/* Make the last committed state the checkpoint before the VMM changes guest memory, so that a later rollback does not replay
 * elements from before the change. Both replicas must be at that state, restored or committed. Returns an enum
 * dwc_commit_result or -errno. */
int dwc_engine_checkpoint(struct dwc_engine *e)
{
	enum dwc_activity before;
	int result;

	DWC_ASSERT(e, e->phase == DWC_PHASE_BETWEEN || e->phase == DWC_PHASE_INPUTS_CHOSEN);
	if (!e->log.count)
		return DWC_COMMIT_DONE;
	before = dwc_enter(&e->replicas[0], DWC_AT_COMPARE_COMMIT);
	result = checkpoint(e);
	dwc_leave(&e->replicas[0], before);
	if (!result)
		dwc_record_checkpoint(e);
	return result;
}
