/* Brings both replicas back to the last committed state: restores the checkpoint, and replays the elements committed since
 * with their logged inputs (docs/decisions/0002-checkpoints-and-replay.md). */
#include "element/rollback.h"

#include <linux/kvm.h>
#include <stddef.h>

#include "assertion.h"
#include "engine.h"
#include "host.h"
#include "memory/guard.h"
#include "memory/pages.h"
#include "phase.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

#define SPARE_NS 10000000000ull /* in case the machine is busier now than at the first run */
#define SPARE_TIMES 4
#define REPLAY_TRIES 64

int dwc_job_restore(struct dwc_replica *r)
{
	r->state = r->engine->checkpoint.state;
	r->stage = DWC_STAGE_AT_COMMITTED;
	return dwc_state_set(r, &r->state, r->engine->config.tlb_flush == DWC_TLB_FLUSH_PGE);
}

/* Run to the expected exit: the I/O exit of the checkpoint, whose instruction exits again (the device is not asked again), or the
 * end of a logged element. */
static int job_reach_exit(struct dwc_replica *r)
{
	const struct dwc_logged *logged = r->engine->log.replayed;
	int end;

	r->run->request_interrupt_window = 0;
	dwc_inner_plan(r, logged ? logged->inner.count + 1 : 1, 0);
	r->started_ns = dwc_now_ns();
	end = dwc_replica_run(r, r->engine->log.replay_ns);
	if (end < 0)
		return end;
	if (end == DWC_RUN_STOP_REQUESTED)
		return DWC_ROLLBACK_STOP_REQUESTED;
	if (end != DWC_RUN_EXIT || !dwc_same_exit(&r->exit, r->engine->log.expected))
		return DWC_ROLLBACK_UNREPEATABLE;
	if (logged && (r->inner.count != logged->inner.count || r->inner.flow != logged->inner.flow))
		return DWC_ROLLBACK_UNREPEATABLE;
	r->stage = DWC_STAGE_AT_COMMITTED;
	return DWC_ROLLBACK_DONE;
}

static int job_replay(struct dwc_replica *r)
{
	int err = dwc_replica_feed(r);

	return err ? err : job_reach_exit(r);
}

/* Check that both replicas have arrived at the state of the last logged element: its exits have occurred, its registers are the
 * same, and all memory is equal. */
static int arrived(struct dwc_engine *e)
{
	int err;

	if ((err = dwc_replica_call_both(e, dwc_pages_harvest)))
		return err;
	if ((e->vms == 2 &&
	     (e->divergence.groups = dwc_state_compare_synced(&e->replicas[0].state, &e->replicas[1].state, &e->stats))) ||
	    (e->divergence.groups = dwc_state_compare_synced(&e->replicas[0].state, &e->log.committed, &e->stats)) ||
	    (e->divergence.groups = dwc_pages_compare(e, 0)))
		return DWC_ROLLBACK_UNREPEATABLE;
	e->log.unseen_ns = 0;
	return 0;
}

static int replay_logged(struct dwc_engine *e, const struct dwc_logged *logged)
{
	int err;

	dwc_copy_inputs(e, &e->inputs, &logged->inputs);
	e->log.expected = &logged->exit;
	e->log.replay_ns = SPARE_NS + SPARE_TIMES * logged->ran_ns;
	e->log.replayed = logged;
	err = dwc_replica_call_both(e, job_replay);
	e->log.replayed = NULL;
	dwc_copy_exit(&e->exit, &logged->exit);
	e->has_pending_io = dwc_finishes_later(e, &e->exit);
	return err;
}

/* Replay the log from the checkpoint on. Devices are not asked again. */
static int replay(struct dwc_engine *e)
{
	int err;

	dwc_copy_exit(&e->exit, &e->checkpoint.exit);
	e->has_pending_io = dwc_finishes_later(e, &e->exit);
	e->log.expected = &e->checkpoint.exit;
	e->log.replay_ns = SPARE_NS;
	if (e->has_pending_io && (err = dwc_replica_call_both(e, job_reach_exit)))
		return err;
	for (uint32_t i = 0; i < e->log.count; i++)
		if ((err = replay_logged(e, &e->log.entries[i])))
			return err;
	return e->log.count ? arrived(e) : 0;
}

static int restore(struct dwc_engine *e, int all)
{
	int err;

	dwc_counter_disarm(&e->replicas[0]);
	dwc_counter_disarm(&e->replicas[1]);
	if ((err = dwc_replica_call_both(e, dwc_replica_complete)) || (err = dwc_guard_log(e)) ||
	    (err = dwc_pages_rollback(e, all)))
		return err;
	if (e->config.tlb_flush == DWC_TLB_FLUSH_MEMSLOT && (err = dwc_pages_readd_slot(e)))
		return err;
	return dwc_replica_call_both(e, dwc_job_restore);
}

/* A logged element may have read time without a difference between the replicas. Replayed, it can take another path (Linux'
 * get_any_partial() looks at get_cycles() % 1024): then the replay is repeated. */
static int roll_back(struct dwc_engine *e, int all, enum dwc_phase to)
{
	struct dwc_inputs inputs = e->inputs;
	uint32_t diff = e->divergence.groups;
	enum dwc_activity before;
	int err, tries = 0;

	DWC_ASSERT(e, to <= e->phase); /* inputs cannot stay that have not been chosen */
	if (e->phase == DWC_PHASE_DISCARDED) /* where the element that differed ended: a search goes no further */
		e->search.inner_limit = dwc_inner_limit_of_both(e);
	dwc_set_phase(e, DWC_PHASE_ROLLING_BACK);
	do {
		/* a fault in a page that no log names can also make a replay fail: restore all of RAM the second time */
		if ((err = restore(e, all || tries == 1)))
			return err;
		before = dwc_enter(&e->replicas[0], DWC_AT_REPLAY);
		err = replay(e);
		dwc_leave(&e->replicas[0], before);
	} while (err == DWC_ROLLBACK_UNREPEATABLE && ++tries < REPLAY_TRIES);
	if (err)
		return err;
	e->slice.counts_void = 1;
	e->divergence.groups = diff;
	e->inputs = inputs;
	/* devices are not asked again: the local APIC may have set CR8 after the element (serve_memory in between.c) */
	if (to == DWC_PHASE_BETWEEN && e->exit.reason == KVM_EXIT_MMIO)
		e->replicas[0].run->cr8 = e->pc.lapic.tpr >> 4;
	dwc_set_phase(e, to);
	e->stats.rollbacks++;
	return 0;
}

/* Bring both replicas back to the last committed state, and the engine to phase `to`: BETWEEN, if the next element has no inputs
 * yet; INPUTS_CHOSEN or START_VISITED, which keep the inputs. Returns an enum dwc_rollback_result or -errno. */
int dwc_engine_rollback(struct dwc_engine *e, int all, enum dwc_phase to)
{
	enum dwc_activity before = dwc_enter(&e->replicas[0], DWC_AT_ROLLBACK);
	int result = roll_back(e, all, to);

	dwc_leave(&e->replicas[0], before);
	return result;
}
