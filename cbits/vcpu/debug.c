/* KVM_SET_GUEST_DEBUG: single steps, a breakpoint, and exits by debug exceptions for sites in ring 3. */
#include "vcpu/debug.h"

#include <linux/kvm.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "replica/replica.h"
#include "vcpu/insn.h"
#include "vcpu/points.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"

#define DR6_B0 1u
#define DR7_G0 2 /* breakpoint 0, instruction execution */
#define RFLAGS_TF (1u << 8)
#define RFLAGS_TF_BYTE 1
#define LONGEST_PUSH 8

/* If there are sites in ring 3, debug exceptions must always exit: ask for hardware breakpoints, and set none. A debugger's points are
 * set besides, except that single steps begin at any instruction. */
static int guest_debug(struct dwc_replica *r, uint32_t control, uint64_t linear)
{
	struct kvm_guest_debug debug;

	memset(&debug, 0, sizeof debug);
	if (r->engine->sites.in_user)
		control |= KVM_GUESTDBG_USE_HW_BP;
	debug.control = control;
	dwc_points_arm(r->engine, &debug, (control & KVM_GUESTDBG_SINGLESTEP) != 0);
	if (debug.control)
		debug.control |= KVM_GUESTDBG_ENABLE;
	if (linear) {
		debug.arch.debugreg[0] = linear;
		debug.arch.debugreg[7] |= DR7_G0;
	}
	return (int)dwc_ioctl(r->vcpu_fd, KVM_SET_GUEST_DEBUG, &debug);
}

/* Instructions that lose or block TF: KVM's single step uses the guest's own RFLAGS.TF. For PUSHF and SYSRET see dwc_begin_step(). */
int dwc_can_step(const struct dwc_insn *insn)
{
	switch (insn->kind) {
	case DWC_INSN_LOAD_SS: case DWC_INSN_INT: case DWC_INSN_ICEBP: case DWC_INSN_HLT: case DWC_INSN_SYSCALL:
		return 0;
	default:
		return 1;
	}
}

int dwc_set_stepping(struct dwc_replica *r, int on)
{
	return guest_debug(r, on ? KVM_GUESTDBG_SINGLESTEP : 0, 0);
}

static uint64_t linear_stack(const struct dwc_replica *r)
{
	const struct kvm_segment *ss = &r->run->s.regs.sregs.ss;
	uint64_t rsp = r->run->s.regs.regs.rsp;

	if (r->run->s.regs.sregs.cs.l)
		return rsp;
	return ss->base + (ss->db ? (uint32_t)rsp : (uint16_t)rsp);
}

/* A single step uses the guest's own TF, which two instructions would show. SYSRET traps by the TF that it loads from R11, where
 * others trap by the TF with which they start: so R11 holds TF during the step. PUSHF pushes TF: it is cleared on the stack. */
int dwc_begin_step(struct dwc_replica *r, struct dwc_step *step)
{
	struct kvm_regs *regs = &r->run->s.regs.regs;
	uint64_t linear = regs->rip + r->run->s.regs.sregs.cs.base;
	struct dwc_insn insn;

	dwc_insn_at(r, linear, &insn);
	step->sysret = insn.kind == DWC_INSN_SYSRET && !(regs->r11 & RFLAGS_TF);
	if (insn.kind == DWC_INSN_STI) /* QEMU TCG's step also executes the instruction in its shadow */
		dwc_insn_at(r, linear + insn.length, &insn);
	step->pushf = insn.kind == DWC_INSN_PUSHF;
	step->rsp = regs->rsp;
	if (!step->sysret)
		return 0;
	regs->r11 |= RFLAGS_TF;
	return dwc_set_regs(r);
}

int dwc_end_step(struct dwc_replica *r, const struct dwc_step *step)
{
	struct kvm_regs *regs = &r->run->s.regs.regs;
	uint64_t gpa;

	/* RFLAGS were pushed, rather than the frame of an exception */
	if (step->pushf && step->rsp - regs->rsp <= LONGEST_PUSH && step->rsp != regs->rsp &&
	    dwc_translate(r, linear_stack(r) + RFLAGS_TF_BYTE, &gpa))
		r->ram[gpa] &= (uint8_t) ~(RFLAGS_TF >> 8);
	if (!step->sysret)
		return 0;
	regs->r11 &= ~(uint64_t)RFLAGS_TF;
	r->state.regs.r11 = regs->r11;
	return dwc_set_regs(r);
}

/* Set the breakpoint to a linear address; 0: none. */
int dwc_set_breakpoint(struct dwc_replica *r, uint64_t linear)
{
	return guest_debug(r, linear ? KVM_GUESTDBG_USE_HW_BP : 0, linear);
}

/* Whether the last exit was by the breakpoint. */
int dwc_at_breakpoint(const struct dwc_replica *r)
{
	return r->exit.reason == KVM_EXIT_DEBUG && r->exit.info & DR6_B0;
}

/* Before an entry at the breakpoint: set RF, without which the instruction there would hit it again (SDM 3B 18.3.1.1). */
void dwc_resume_past(struct dwc_replica *r)
{
	r->run->s.regs.regs.rflags |= DWC_RFLAGS_RF;
	r->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}
