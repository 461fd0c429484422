/* At an exit to a device KVM's emulator is in the middle of an instruction, whose rest is in no register. A settling element is this rest,
 * with the device's answer, and no further instruction: KVM_RUN with immediate_exit (KVM api.rst). After it all of the guest is in
 * its registers, its memory and its devices, and can be saved. Like any element it is run by both replicas, compared and committed. In
 * place there is none, as each element starts like that (dwc_inplace_make_ready). */
#include "element/settle.h"

#include <linux/kvm.h>

#include "element/strategy.h"
#include "engine.h"
#include "host.h"
#include "memory/guard.h"
#include "phase.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

/* If the instruction exits once more, this exit ends the element as any other does: a run that enters the guest meets it, too. */
static int job_settle(struct dwc_replica *r)
{
	int again, err;

	r->started_ns = dwc_now_ns();
	if ((err = dwc_replica_feed(r)))
		return err;
	if ((again = dwc_replica_finish(r)) < 0)
		return again;
	r->ended_ns = dwc_now_ns();
	if (again)
		dwc_describe_exit(r);
	else
		dwc_replica_ends_by(r, KVM_EXIT_INTR);
	r->stage = DWC_STAGE_RAN;
	return r->engine->protects ? dwc_state_get(r, &r->state) : 0;
}

/* Returns 0 at the element's end, or -errno. */
int dwc_run_settling(struct dwc_engine *e)
{
	int err;

	e->slice.counts_void = 1;
	dwc_account(e, DWC_AT_FIRST_RUN);
	err = dwc_replica_call_both(e, job_settle);
	if (!err)
		dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return err;
}

/* Whether nothing is pending at the last committed state: no rest of an instruction, and no answer for the next element. */
int dwc_is_settled(const struct dwc_engine *e)
{
	const struct dwc_exit *exit = e->ops->make_ready ? &e->checkpoint.exit : &e->exit;

	return e->phase == DWC_PHASE_BETWEEN && e->inputs.answer == DWC_ANSWER_IO && !dwc_is_io(exit);
}

/* All of the vCPU there, which must be a checkpoint. Returns DWC_ROLLBACK_DAMAGED if that is damaged, or -errno. */
int dwc_settled_state(struct dwc_engine *e, struct dwc_state *out)
{
	int err;

	if (e->protects) {
		*out = e->checkpoint.state;
		return dwc_guard_log(e);
	}
	err = dwc_state_prime(&e->replicas[0]);
	return err ? err : dwc_state_get(&e->replicas[0], out);
}
