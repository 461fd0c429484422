/* KVM_SET_GUEST_DEBUG: single steps, a breakpoint, and debug exits for learned sites in ring 3. */
#include "core.h"

#include <string.h>

#define DR7_G0 2 /* breakpoint 0, instruction execution */
#define RFLAGS_TF (1u << 8)
#define SYSRET_BYTES 3

static const uint8_t sysret[] = { 0x0f, 0x07 }, sysret_64[] = { 0x48, 0x0f, 0x07 };

/* Wherever there are sites in ring 3, debug exceptions keep coming to the VMM: "hardware breakpoints", and none set. */
static int guest_debug(struct dwc_replica *r, uint32_t control, uint64_t linear)
{
	struct kvm_guest_debug debug;

	memset(&debug, 0, sizeof debug);
	if (r->engine->user_sites)
		control |= KVM_GUESTDBG_USE_HW_BP;
	debug.control = control ? control | KVM_GUESTDBG_ENABLE : 0;
	if (linear) {
		debug.arch.debugreg[0] = linear;
		debug.arch.debugreg[7] = DR7_G0;
	}
	return (int)dwc_ioctl(r->vcpu_fd, KVM_SET_GUEST_DEBUG, &debug);
}

int dwc_set_stepping(struct dwc_replica *r, int on)
{
	return guest_debug(r, on ? KVM_GUESTDBG_SINGLESTEP : 0, 0);
}

/* SYSRET traps by the TF that it has taken from R11, others by the one they began with: while it is stepped R11 holds TF.
 * Returns 1 where it does, for dwc_end_sysret to take it out again: nothing of it shows. */
int dwc_begin_sysret(struct dwc_replica *r)
{
	struct kvm_regs *regs = &r->run->s.regs.regs;
	uint8_t code[SYSRET_BYTES];
	int err;

	dwc_read_code(r, regs->rip + r->run->s.regs.sregs.cs.base, code, sizeof code);
	if (regs->r11 & RFLAGS_TF || (memcmp(code, sysret, 2) && memcmp(code, sysret_64, 3)))
		return 0;
	regs->r11 |= RFLAGS_TF;
	return (err = dwc_set_regs(r)) ? err : 1;
}

int dwc_end_sysret(struct dwc_replica *r)
{
	r->run->s.regs.regs.r11 &= ~(uint64_t)RFLAGS_TF;
	r->state.regs.r11 = r->run->s.regs.regs.r11;
	return dwc_set_regs(r);
}

/* At a linear address, or 0: none. */
int dwc_set_breakpoint(struct dwc_replica *r, uint64_t linear)
{
	return guest_debug(r, linear ? KVM_GUESTDBG_USE_HW_BP : 0, linear);
}
