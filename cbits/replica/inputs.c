/* Gives a replica the inputs of an element, on its own thread: the answer to the exit before it, and an interrupt. */
#include "replica/inputs.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "replica/hostreads.h"
#include "replica/inner.h"
#include "replica/replica.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

#define DB_VECTOR 1
#define UD_VECTOR 6

/* Copy inputs of the element after the exit e->exit, which says how much data there is. */
void dwc_copy_inputs(const struct dwc_engine *e, struct dwc_inputs *to, const struct dwc_inputs *from)
{
	memcpy(to, from, offsetof(struct dwc_inputs, io_data) + dwc_exit_length(&e->exit));
}

static void raise_exception(struct dwc_replica *r, uint8_t vector)
{
	struct kvm_vcpu_events *events = &r->run->s.regs.events;

	memset(&events->exception, 0, sizeof events->exception);
	events->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	events->exception.pending = 1;
	events->exception.nr = vector;
	r->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
}

/* Give a replica the answer to the pending exit; the next KVM_RUN finishes the instruction with it. */
static void answer_msr(struct dwc_replica *r)
{
	const struct dwc_inputs *inputs = &r->engine->inputs;

	r->run->msr.error = inputs->answer == DWC_ANSWER_REFUSED;
	if (!r->engine->exit.is_write)
		memcpy(&r->run->msr.data, inputs->io_data, sizeof r->run->msr.data);
}

/* Set the registers that the answer sets, at the start of the element, on the owning thread. */
static int set_answer(struct dwc_replica *r)
{
	struct kvm_vcpu_events *events = &r->run->s.regs.events;
	const struct dwc_inputs *inputs = &r->engine->inputs;
	struct kvm_regs *regs = &r->run->s.regs.regs;
	uint64_t rax = regs->rax;
	int err;

	switch (inputs->answer) {
	case DWC_ANSWER_SITE_PORT:
		/* no register may be set while the IN is pending; after this run the sync regs are past it, with some value in EAX */
		if ((err = dwc_replica_complete(r)))
			return err;
		regs->rax = rax;
		regs->rip = inputs->next_rip;
		dwc_write_read(regs, &inputs->read, inputs->value, inputs->aux);
		return dwc_set_regs(r);
	case DWC_ANSWER_SITE_TRAP:
		dwc_write_read(regs, &inputs->read, inputs->value, inputs->aux);
		regs->rip = inputs->next_rip;
		return dwc_set_regs(r);
	case DWC_ANSWER_DEBUG:
		regs->rip = inputs->next_rip;
		raise_exception(r, DB_VECTOR);
		events->exception_has_payload = 1;
		events->exception_payload = inputs->debug_payload;
		return dwc_set_regs(r);
	case DWC_ANSWER_UNDEFINED:
		raise_exception(r, UD_VECTOR);
		return 0;
	default:
		return 0;
	}
}

/* Give the device's answer to a pending read, and the registers that an answer sets. */
int dwc_replica_answer(struct dwc_replica *r)
{
	struct dwc_engine *e = r->engine;
	struct dwc_exit *x = &e->exit;

	if (e->has_pending_io && dwc_is_msr(x))
		answer_msr(r);
	else if (e->has_pending_io && !x->is_write) {
		if (x->reason == KVM_EXIT_IO)
			memcpy((uint8_t *)r->run + r->run->io.data_offset, e->inputs.io_data, (size_t)x->size * x->count);
		else
			memcpy(r->run->mmio.data, e->inputs.io_data, sizeof r->run->mmio.data);
	}
	return set_answer(r);
}

/* Inject an interrupt. It pushes RFLAGS with RF, which events of the host (an EPT violation, a breakpoint) can have set in one replica,
 * or in the first run but not in a replay. Between instructions RF has no meaning: clear it first. */
static int inject_interrupt(struct dwc_replica *r, uint32_t vector)
{
	struct kvm_interrupt interrupt = { vector };
	struct kvm_regs *regs = &r->run->s.regs.regs;
	long err;

	/* after a memory-mapped read the same instruction may write: that exit must not be finished here */
	if (r->engine->protects && regs->rflags & DWC_RFLAGS_RF &&
	    !(r->engine->has_pending_io && r->engine->exit.reason == KVM_EXIT_MMIO)) {
		/* no register may be set while an exit is pending */
		if (r->engine->has_pending_io && (err = dwc_replica_complete(r)))
			return (int)err;
		regs->rflags &= ~DWC_RFLAGS_RF;
		r->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	}
	err = dwc_ioctl(r->vcpu_fd, KVM_INTERRUPT, &interrupt);
	return err < 0 ? (int)err : 0;
}

/* Give all inputs of the element: the answer to the exit before it, and the interrupt with which it starts. */
int dwc_replica_feed(struct dwc_replica *r)
{
	struct dwc_engine *e = r->engine;
	int err;

	r->tick_crossed = 0;
	dwc_inner_begin(r);
	if ((err = dwc_replica_answer(r)))
		return err;
	r->run->request_interrupt_window = (uint8_t)e->inputs.window;
	r->run->cr8 = e->inputs.cr8;
	if (e->inputs.nmi && (err = (int)dwc_ioctl(r->vcpu_fd, KVM_NMI, NULL)))
		return err;
	return e->inputs.vector < 0 ? 0 : inject_interrupt(r, (uint32_t)e->inputs.vector);
}

/* Give the inputs once, however often this is called: visits and single steps can start there. */
int dwc_replica_feed_once(struct dwc_replica *r)
{
	int err = r->stage == DWC_STAGE_HAS_INPUTS ? 0 : dwc_replica_feed(r);

	if (!err)
		r->stage = DWC_STAGE_HAS_INPUTS;
	return err;
}
