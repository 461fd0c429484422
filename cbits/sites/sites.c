/* Learned sites: instructions that read what is the host's (the TSC, a random number; insn.c), replaced by a trap of the same
 * length, in both replicas and the checkpoint. The element ends there from then on, and what they read comes from the VMM, the same
 * for both.
 *
 * In ring 0 the trap is IN eax, imm8: it exits on every KVM. In ring 3 that is a matter of IOPL; there it is one of two,
 * by what the host was found to do (hostprobe.py):
 * ICEBP, a debug exception that needs no gate, and an exit while KVM_SET_GUEST_DEBUG asks for hardware breakpoints;
 * SYSENTER, which AMD's processors do not know in long mode and KVM does not emulate in 64-bit code (em_sysenter in
 * emulate.c): an exit by KVM_CAP_EXIT_ON_EMULATION_FAILURE. In 32-bit code there is no trap then.
 * Debug exceptions and invalid opcodes of the guest's own come to us then as well, and go back to it. */
#include "sites/sites.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <sys/random.h>
#include <x86intrin.h>

#include "engine.h"
#include "host.h"
#include "memory/dma.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sites/search.h"
#include "vcpu/debug.h"
#include "vcpu/exit.h"
#include "vcpu/insn.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"
#include "vcpu/tsc.h"

#define NOP 0x90
#define LAST (DWC_LONGEST_INSTRUCTION - 1)
#define DR6_ACTIVE_LOW 0xffff0ff0ull /* bits that are set where nothing happened (SDM 3B 18.2.3) */

const uint8_t dwc_port_trap[DWC_LONGEST_INSTRUCTION] = { 0xe5, DWC_TIME_PORT, [2 ... LAST] = NOP };
const uint8_t dwc_sysenter_trap[DWC_LONGEST_INSTRUCTION] = { 0x0f, 0x34, [2 ... LAST] = NOP };
static const uint8_t icebp_trap[DWC_LONGEST_INSTRUCTION] = { 0xf1, [1 ... LAST] = NOP };

static int job_refresh_guest_debug(struct dwc_replica *r)
{
	return dwc_set_stepping(r, 0);
}

/* Put the trap where the last search has ended. The replicas stand at the checkpoint. */
int dwc_learn_site(struct dwc_engine *e)
{
	const struct dwc_search *found = &e->search;
	int user = found->user;
	const uint8_t *code = !user ? dwc_port_trap : e->config.user_trap == DWC_USER_TRAP_ICEBP ? icebp_trap : dwc_sysenter_trap;
	struct dwc_site *site;
	int err;

	if ((err = dwc_memory_write(e, found->gpa, code, found->read.length)))
		return err;
	for (site = e->sites.site; site < e->sites.site + e->sites.count; site++)
		if (site->gpa == found->gpa) { /* the guest had put the instruction there again, or another one */
			site->read = found->read;
			return 0;
		}
	if (e->sites.count == DWC_MAX_SITES)
		return -ENOSPC;
	e->sites.count++;
	site->gpa = found->gpa;
	site->read = found->read;
	site->user = (uint8_t)user;
	if (!user || e->config.user_trap != DWC_USER_TRAP_ICEBP || e->sites.in_user++)
		return 0;
	return dwc_replica_call_both(e, job_refresh_guest_debug);
}

static const struct dwc_site *site_at(struct dwc_engine *e, uint64_t linear, int user)
{
	uint64_t gpa;

	if (dwc_translate(&e->replicas[0], linear, &gpa))
		for (uint32_t i = 0; i < e->sites.count; i++)
			if (e->sites.site[i].gpa == gpa && e->sites.site[i].user == user)
				return &e->sites.site[i];
	return NULL;
}

/* XCR0 as it is now: the guest can have changed it since the checkpoint. */
static uint64_t enabled_registers(const struct dwc_engine *e)
{
	struct kvm_xcrs xcrs;

	if (dwc_ioctl(e->replicas[0].vcpu_fd, KVM_GET_XCRS, &xcrs) < 0 || !xcrs.nr_xcrs)
		return e->checkpoint.state.xcrs.xcrs[0].value;
	return xcrs.xcrs[0].value;
}

/* What the instruction reads, and where it goes on. */
static void supply(struct dwc_engine *e, const struct dwc_insn *read, uint64_t rip)
{
	struct dwc_inputs *inputs = &e->inputs;

	e->sites.reads++;
	inputs->read = *read;
	inputs->next_rip = rip + read->length;
	inputs->value = inputs->aux = e->tsc.aux;
	switch (read->kind) {
	case DWC_READ_RDTSC: case DWC_READ_RDTSCP:
		inputs->value = dwc_tsc_next(e);
		break;
	case DWC_READ_RDRAND: case DWC_READ_RDSEED:
		if (getrandom(&inputs->value, sizeof inputs->value, GRND_NONBLOCK) < 0)
			inputs->value = dwc_tsc_next(e);
		break;
	case DWC_READ_XGETBV: /* all registers that are enabled count as in use (SDM 1 13.6: XINUSE may say so) */
		inputs->value = enabled_registers(e);
		break;
	default: /* RDPID */
		break;
	}
}

/* If the committed exit is a trap of ours, answer it. The guest may have put other code with the same port there since: look at the address. */
int dwc_site_answer(struct dwc_engine *e)
{
	const struct dwc_state *s = &e->replicas[0].state;
	const struct dwc_exit *x = &e->exit;
	int user = x->reason != KVM_EXIT_IO, behind = x->reason == KVM_EXIT_DEBUG && e->config.icebp_rip_after;
	const struct dwc_site *site;

	if (!user && (x->port != DWC_TIME_PORT || x->is_write || x->size != 4 || x->count != 1))
		return 0;
	if (!e->sites.count || !(site = site_at(e, dwc_linear_rip(s) - (uint64_t)behind, user)))
		return 0;
	supply(e, &site->read, s->regs.rip - (uint64_t)behind);
	e->inputs.answer = user ? DWC_ANSWER_SITE_TRAP : DWC_ANSWER_SITE_PORT;
	return 1;
}

/* Where no trap can stand: both replicas are before the instruction that the last search has found, and the element that starts
 * there gets its result instead of executing it. Returns 0, and does nothing, where they are not: single steps may have ended before. */
int dwc_pass_host_read(struct dwc_engine *e)
{
	struct dwc_replica *r = &e->replicas[0];
	struct dwc_insn insn;

	dwc_insn_at(r, dwc_linear_rip(&r->state), &insn);
	if (insn.kind != e->search.read.kind)
		return 0;
	supply(e, &e->search.read, r->state.regs.rip);
	e->inputs.answer = DWC_ANSWER_SITE_TRAP;
	return 1;
}

/* The committed debug exit is none of ours: the guest shall have its exception. */
void dwc_reflect_debug_exception(struct dwc_engine *e)
{
	struct dwc_replica *r = &e->replicas[0];
	struct dwc_insn insn;

	e->inputs.answer = DWC_ANSWER_DEBUG;
	e->inputs.debug_payload = e->exit.info ^ DR6_ACTIVE_LOW;
	e->inputs.next_rip = r->state.regs.rip;
	/* an ICEBP of the guest's own is a trap: RIP is pushed behind it (vmx.c, handle_exception_nmi) */
	if (e->config.icebp_rip_after)
		return;
	dwc_insn_at(r, dwc_linear_rip(&r->state), &insn);
	if (insn.kind == DWC_INSN_ICEBP)
		e->inputs.next_rip += insn.length;
}

/* The same of an instruction that KVM could not emulate; 0 where that is no invalid opcode of ring 3. */
int dwc_reflect_undefined(struct dwc_engine *e)
{
	const struct dwc_state *s = &e->replicas[0].state;

	if (e->config.user_trap != DWC_USER_TRAP_SYSENTER || e->exit.info != KVM_INTERNAL_ERROR_EMULATION || s->sregs.ss.dpl != 3)
		return 0;
	e->inputs.answer = DWC_ANSWER_UNDEFINED;
	return 1;
}
