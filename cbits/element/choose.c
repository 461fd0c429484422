/* The inputs of an element. */
#include "element/choose.h"

#include "element/strategy.h"
#include "engine.h"
#include "pc/interrupts.h"
#include "pc/lapic.h"
#include "pc/pc.h"
#include "phase.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "vcpu/tsc.h"

/* Whether the element starts with an exception: KVM does not accept an interrupt or NMI at the same time. */
static int starts_with_exception(const struct dwc_engine *e)
{
	/* the answer may have been given already (dwc_inplace_make_ready, settle.c) */
	if (e->protects && !e->log.count && e->checkpoint.state.events.exception.pending)
		return 1;
	return e->inputs.answer == DWC_ANSWER_DEBUG || e->inputs.answer == DWC_ANSWER_UNDEFINED ||
	       e->inputs.answer == DWC_ANSWER_REFUSED;
}

/* Choose an element's inputs, once: a restart gets the same ones. */
void dwc_choose_inputs(struct dwc_engine *e)
{
	int pending, alone;

	e->inputs.settles = e->requests.settle && !e->ops->make_ready;
	e->requests.settle = 0;
	alone = e->phase == DWC_PHASE_FRAGMENT || e->inputs.settles || starts_with_exception(e) ||
		(e->requests.by_instruction && !e->clock.halted);
	e->inner_limit = DWC_NO_LIMIT;
	dwc_tsc_choose(e);
	e->inputs.aux = e->tsc.aux;
	if (e->sites.count)
		e->inputs.site_tsc = dwc_tsc_next(e);
	dwc_pc_tick(&e->pc, e->clock.guest_ns);
	dwc_lapic_set_cr8(&e->pc.lapic, (unsigned)e->replicas[0].run->cr8);
	e->inputs.cr8 = e->pc.lapic.tpr >> 4;
	pending = dwc_pc_interrupt_pending(&e->pc);
	e->inputs.vector = -1;
	e->inputs.window = 0;
	e->inputs.nmi = e->pc.lapic.nmi && !alone;
	e->pc.lapic.nmi &= !e->inputs.nmi;
	if (!pending || alone || e->inputs.nmi) {
		e->waiting = 0;
		return;
	}
	if (e->replicas[0].run->ready_for_interrupt_injection &&
	    (!e->protects || e->replicas[1].run->ready_for_interrupt_injection))
		e->inputs.vector = dwc_pc_interrupt_acknowledge(&e->pc);
	else if (!e->protects || e->config.exact_windows)
		e->inputs.window = 1;
	else
		e->waiting++;
}
