/* KVM_SET_GUEST_DEBUG: single steps, a breakpoint, and debug exits for learned sites in ring 3. */
#include "core.h"

#include <string.h>

#define DR7_G0 2 /* breakpoint 0, instruction execution */

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

/* At a linear address, or 0: none. */
int dwc_set_breakpoint(struct dwc_replica *r, uint64_t linear)
{
	return guest_debug(r, linear ? KVM_GUESTDBG_USE_HW_BP : 0, linear);
}
