/* What a debugger does with a guest that stands at a settled state (settle.h): its points, its registers, and steps of it. */
#include "element/debugger.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>

#include "assertion.h"
#include "element/choose.h"
#include "element/settle.h"
#include "element/steps.h"
#include "element/strategy.h"
#include "engine.h"
#include "memory/guard.h"
#include "phase.h"
#include "replica/replica.h"
#include "vcpu/debug.h"
#include "vcpu/points.h"
#include "vcpu/state.h"

/* Note the points at which replica A stands now, also without a step to there. */
int dwc_look_for_points(struct dwc_engine *e)
{
	struct dwc_replica *r = &e->replicas[0];
	int err;

	if (!e->protects) { /* KVM_RUN does not fill the run page */
		if ((err = dwc_state_prime(r)))
			return err;
		dwc_state_get_synced(r, &r->state);
	}
	e->points.hits |= dwc_points_at(r);
	return 0;
}

static int job_arm(struct dwc_replica *r)
{
	return dwc_set_stepping(r, 0);
}

/* Replace the points. The state must be settled, so that no replay meets others than its element did. Returns -ENOSPC if debug
 * registers have no room, or -errno. */
int dwc_points_set(struct dwc_engine *e, const struct dwc_point *points, uint32_t count, int in_hardware)
{
	DWC_ASSERT(e, !e->log.count);
	if (count > (in_hardware ? dwc_points_most(e) : DWC_MOST_POINTS))
		return -ENOSPC;
	if (count)
		memcpy(e->points.at, points, count * sizeof *points);
	e->points.count = count;
	e->points.in_hardware = in_hardware;
	e->points.hits = 0;
	dwc_points_note_content(&e->replicas[0]);
	return dwc_replica_call_both(e, job_arm);
}

/* Set the checkpoint's registers, and read back what KVM has made of them. */
static int job_set(struct dwc_replica *r)
{
	const struct dwc_engine *e = r->engine;
	int err = dwc_state_set(r, &e->checkpoint.state, e->config.tlb_flush == DWC_TLB_FLUSH_PGE);

	if (!err && !(err = dwc_state_prime(r)))
		err = dwc_state_get(r, &r->state);
	/* without running the guest: whether it can be interrupted is in the run page then, as after an exit */
	return err ? err : dwc_replica_finish(r);
}

static int set_all(struct dwc_engine *e, const struct dwc_state *to)
{
	int err;

	e->checkpoint.state = *to;
	if ((err = dwc_replica_call_both(e, job_set)))
		return err;
	if (e->vms == 2 && dwc_state_compare(&e->replicas[0].state, &e->replicas[1].state, &e->stats))
		return -EIO;
	e->checkpoint.state = e->replicas[1].state = e->replicas[0].state;
	e->checkpoint.sum = dwc_checkpoint_sum(e);
	return 0;
}

/* Change registers of the guest, in all replicas and the checkpoint. If KVM refuses a value nothing is changed, and -errno is returned. */
int dwc_set_settled_state(struct dwc_engine *e, const struct dwc_state *in)
{
	struct dwc_state before;
	int err, undone;

	DWC_ASSERT(e, !e->log.count);
	if ((err = dwc_settled_state(e, &before)))
		return err;
	if (!(err = set_all(e, in)))
		return 0;
	undone = set_all(e, &before);
	return undone ? undone : err;
}

/* An element of up to `limit` single steps, which ends at the first point that it meets. It starts without an interrupt. Returns as
 * dwc_step_element() does; without protection DISCARDED means that an exit of the guest has ended it, which is still to be
 * committed by dwc_engine_run(). */
int dwc_step_guest(struct dwc_engine *e, uint64_t limit)
{
	int err;

	DWC_ASSERT(e, e->phase == DWC_PHASE_BETWEEN && dwc_is_settled(e));
	if (e->ops->make_ready && (err = e->ops->make_ready(e)))
		return err;
	dwc_choose_inputs(e);
	dwc_set_phase(e, DWC_PHASE_INPUTS_CHOSEN);
	return dwc_step_element(e, limit, 0);
}
