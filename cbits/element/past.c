/* Snapshots of a replay on its way. A snapshot is a checkpoint of the replay, of which what follows is kept as undo pages: so it costs
 * what the guest has written until the next one, and to go back is to undo from the latest one on. The log leads on from there, once more. */
#include "element/past.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "assertion.h"
#include "element/rollback.h"
#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "memory/guard.h"
#include "phase.h"
#include "replica/replica.h"
#include "vcpu/exit.h"

/* Whether the replay stands where one can be taken: at a checkpoint that is the last committed state. */
int dwc_past_can_keep(const struct dwc_engine *e)
{
	return e->phase == DWC_PHASE_BETWEEN && !e->log.count;
}

/* Take a snapshot. Returns -ENOMEM or 0. */
int dwc_past_keep(struct dwc_engine *e)
{
	struct dwc_past *past = &e->past;
	struct dwc_snapshot *to;

	DWC_ASSERT(e, dwc_past_can_keep(e) && past->count < DWC_MOST_SNAPSHOTS);
	if (!past->at && !(past->at = calloc(DWC_MOST_SNAPSHOTS, sizeof *past->at)))
		return -ENOMEM;
	to = &past->at[past->count];
	to->state = e->checkpoint.state;
	dwc_copy_exit(&to->exit, &e->checkpoint.exit);
	to->pc = e->pc; /* all of it: the log has what differs from what was there */
	to->committed = e->stats.committed;
	to->guest_ns = e->clock.guest_ns;
	to->chain = e->replay.chain;
	to->begun = e->replay.begun;
	past->count++;
	return dwc_undo_begin(e, &to->undo);
}

/* Forget this snapshot, which is neither the first nor the last one. Returns -ENOMEM or 0. */
int dwc_past_thin(struct dwc_engine *e, uint32_t number)
{
	struct dwc_past *past = &e->past;
	int err;

	DWC_ASSERT(e, number && number + 1 < past->count);
	if ((err = dwc_undo_merge(e, &past->at[number - 1].undo, &past->at[number].undo)))
		return err;
	past->count--;
	memmove(&past->at[number], &past->at[number + 1], (past->count - number) * sizeof *past->at);
	e->undo.to = &past->at[past->count - 1].undo;
	memset(&past->at[past->count].undo, 0, sizeof past->at[past->count].undo);
	return 0;
}

static void restore(struct dwc_engine *e, const struct dwc_snapshot *from)
{
	e->checkpoint.state = from->state;
	dwc_copy_exit(&e->checkpoint.exit, &from->exit);
	e->checkpoint.sum = dwc_checkpoint_sum(e);
	e->log.count = 0;
	e->log.ticked = 0;
	e->pc = from->pc;
	e->stats.committed = from->committed;
	e->clock.guest_ns = from->guest_ns;
	e->replay.chain = from->chain;
	e->replay.begun = from->begun;
	e->replay.tick_since = 0;
}

/* Give a page its content back in all copies. Nothing may be pending that KVM writes to it later. */
static int put_back(struct dwc_engine *e, const struct dwc_undo_page *from)
{
	uint64_t gpa = (uint64_t)from->page * DWC_PAGE;
	uint8_t *to = dwc_page_to_save(e, gpa);

	int result = dwc_undo_read(from, to);

	if (result)
		return result;
	dwc_set_page_sum(e, gpa, from->sum);
	memcpy(e->replicas[0].ram + gpa, to, DWC_PAGE); /* KVM does not log what the VMM writes: the rollback would not find it */
	return 0;
}

static int undo(struct dwc_engine *e, struct dwc_undo *undo)
{
	int result;

	for (uint32_t i = 0; i < undo->count; i++)
		if ((result = put_back(e, &undo->pages[i])))
			return result;
	dwc_undo_drop(e, undo);
	return 0;
}

static int undo_down_to(struct dwc_engine *e, uint32_t number)
{
	struct dwc_past *past = &e->past;
	int result = 0;

	e->undo.to = NULL;
	for (; !result && past->count > number; past->count--)
		result = undo(e, &past->at[past->count - 1].undo);
	past->count = number + 1;
	return result ? result : dwc_undo_begin(e, &past->at[number].undo);
}

/* Go back to this snapshot; those behind it are forgotten. Returns an enum dwc_rollback_result or -errno, as a rollback does; -ENOMEM also
 * if there was no memory for all that has to be kept. */
int dwc_past_go_back(struct dwc_engine *e, uint32_t number)
{
	int result;

	DWC_ASSERT(e, number < e->past.count);
	if (e->undo.lost)
		return -ENOMEM;
	if ((result = dwc_replica_complete(&e->replicas[0])) || (result = undo_down_to(e, number)))
		return result;
	restore(e, &e->past.at[number]);
	if (e->phase > DWC_PHASE_START_VISITED && e->phase != DWC_PHASE_DISCARDED)
		dwc_set_phase(e, DWC_PHASE_DISCARDED);
	return dwc_engine_rollback(e, 0, DWC_PHASE_BETWEEN);
}

void dwc_past_free(struct dwc_engine *e)
{
	for (uint32_t i = 0; i < e->past.count; i++)
		dwc_undo_drop(e, &e->past.at[i].undo);
	free(e->past.at);
	e->past = (struct dwc_past){ 0 };
	dwc_undo_free(e);
}
