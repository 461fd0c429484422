/* Learned time sites: instructions that read the TSC, replaced by a trap of the same length, in both replicas and
 * the checkpoint. The element ends there from then on, and EDX:EAX comes from the VMM, the same for both.
 *
 * In ring 0 the trap is IN eax, imm8: it exits on every KVM. In ring 3 that is a matter of IOPL; there it is one of two,
 * by what the host was found to do (hostprobe.py):
 * ICEBP, a debug exception that needs no gate, and an exit while KVM_SET_GUEST_DEBUG asks for hardware breakpoints;
 * SYSENTER, which AMD's processors do not know in long mode and KVM does not emulate in 64-bit code (em_sysenter in
 * emulate.c): an exit by KVM_CAP_EXIT_ON_EMULATION_FAILURE. In 32-bit code there is no trap then.
 * Debug exceptions and invalid opcodes of the guest's own come to us then as well, and go back to it. */
#include "core.h"

#include <errno.h>
#include <string.h>
#include <x86intrin.h>

#define ICEBP 0xf1
#define NOP 0x90
#define DB_VECTOR 1
#define UD_VECTOR 6
#define DR6_ACTIVE_LOW 0xffff0ff0ull /* bits that are set where nothing happened (SDM 3B 18.2.3) */

const uint8_t dwc_port_trap[] = { 0xe5, DWC_TIME_PORT, NOP }, dwc_sysenter_trap[] = { 0x0f, 0x34, NOP };
static const uint8_t icebp_trap[] = { ICEBP, NOP, NOP };

static int job_refresh_guest_debug(struct dwc_replica *r)
{
	return dwc_set_stepping(r, 0);
}

/* Put the trap there. The replicas stand at the checkpoint. */
int dwc_learn_time_site(struct dwc_engine *e, uint64_t gpa, uint32_t length, int user)
{
	const uint8_t *code = !user ? dwc_port_trap : e->user_trap == DWC_USER_TRAP_ICEBP ? icebp_trap : dwc_sysenter_trap;
	struct dwc_site *site;
	int err;

	if ((err = dwc_memory_write(e, gpa, code, length)))
		return err;
	for (site = e->sites; site < e->sites + e->site_count; site++)
		if (site->gpa == gpa) /* the guest had put the instruction there again */
			return 0;
	if (e->site_count == DWC_MAX_SITES)
		return -ENOSPC;
	e->site_count++;
	site->gpa = gpa;
	site->length = (uint8_t)length;
	site->user = (uint8_t)user;
	if (!user || e->user_trap != DWC_USER_TRAP_ICEBP || e->user_sites++)
		return 0;
	return dwc_replica_call_both(e, job_refresh_guest_debug);
}

static const struct dwc_site *site_at(struct dwc_engine *e, uint64_t linear, int user)
{
	uint64_t gpa;

	if (dwc_translate(&e->replicas[0], linear, &gpa))
		for (uint32_t i = 0; i < e->site_count; i++)
			if (e->sites[i].gpa == gpa && e->sites[i].user == user)
				return &e->sites[i];
	return NULL;
}

/* Never the same twice, and never less than what the guest has read by itself: both replicas can have read the same by
 * chance, and gone on with it. So it is the host's TSC where the guest's runs, and the frozen one's successor else. */
uint64_t dwc_next_time(struct dwc_engine *e)
{
	uint64_t now = e->tsc_ratio ? e->inputs.tsc : __rdtsc();

	e->site_time = now > e->site_time ? now : e->site_time + 1;
	return e->site_time;
}

static void supply_time(struct dwc_engine *e, uint64_t next_rip)
{
	e->site_reads++;
	e->inputs.time = dwc_next_time(e);
	e->inputs.next_rip = next_rip;
}

/* If the committed exit is a trap of ours, answer it. The guest may have put other code with the same port there since: look at the address. */
int dwc_time_site_answer(struct dwc_engine *e)
{
	const struct dwc_state *s = &e->replicas[0].state;
	const struct dwc_exit *x = &e->exit;
	int user = x->reason != KVM_EXIT_IO, behind = x->reason == KVM_EXIT_DEBUG && e->icebp_rip_after;
	const struct dwc_site *site;
	uint32_t low;

	if (!user && (x->port != DWC_TIME_PORT || x->is_write || x->size != 4 || x->count != 1))
		return 0;
	if (!e->site_count || !(site = site_at(e, dwc_linear_rip(s) - (uint64_t)behind, user)))
		return 0;
	supply_time(e, s->regs.rip - (uint64_t)behind + site->length);
	e->inputs.answer = user ? DWC_ANSWER_TIME_TRAP : DWC_ANSWER_TIME_PORT;
	low = (uint32_t)e->inputs.time;
	dwc_engine_answer(e, (const uint8_t *)&low, sizeof low);
	return 1;
}

/* Where no trap can stand: both replicas are before a time instruction of so many bytes, and the element that starts
 * there gets its result instead of executing it. */
void dwc_pass_time_read(struct dwc_engine *e, uint32_t length)
{
	supply_time(e, e->replicas[0].state.regs.rip + length);
	e->inputs.answer = DWC_ANSWER_TIME_TRAP;
}

/* The committed debug exit is none of ours: the guest shall have its exception. */
void dwc_reflect_debug_exception(struct dwc_engine *e)
{
	const struct dwc_replica *r = &e->replicas[0];
	uint64_t gpa;

	e->inputs.answer = DWC_ANSWER_DEBUG;
	e->inputs.debug_payload = e->exit.info ^ DR6_ACTIVE_LOW;
	e->inputs.next_rip = r->state.regs.rip;
	/* an ICEBP of the guest's own is a trap: RIP is pushed behind it (vmx.c, handle_exception_nmi) */
	if (!e->icebp_rip_after && dwc_translate(&e->replicas[0], dwc_linear_rip(&r->state), &gpa) && r->ram[gpa] == ICEBP)
		e->inputs.next_rip++;
}

/* The same of an instruction that KVM could not emulate; 0 where that is no invalid opcode of ring 3. */
int dwc_reflect_undefined(struct dwc_engine *e)
{
	const struct dwc_state *s = &e->replicas[0].state;

	if (e->user_trap != DWC_USER_TRAP_SYSENTER || e->exit.info != KVM_INTERNAL_ERROR_EMULATION || s->sregs.ss.dpl != 3)
		return 0;
	e->inputs.answer = DWC_ANSWER_UNDEFINED;
	return 1;
}

static void inject(struct dwc_replica *r, uint8_t vector)
{
	struct kvm_vcpu_events *events = &r->run->s.regs.events;

	memset(&events->exception, 0, sizeof events->exception);
	events->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	events->exception.pending = 1;
	events->exception.nr = vector;
	r->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
}

/* Registers that the answer sets, at the start of the element; on the owning thread. */
int dwc_give_answer(struct dwc_replica *r)
{
	struct kvm_vcpu_events *events = &r->run->s.regs.events;
	const struct dwc_inputs *inputs = &r->engine->inputs;
	struct kvm_regs *regs = &r->run->s.regs.regs;
	int err;

	switch (inputs->answer) {
	case DWC_ANSWER_TIME_PORT:
		/* no register may be set while the IN is pending; this run leaves the sync regs behind it */
		if ((err = dwc_replica_complete(r)))
			return err;
		regs->rdx = inputs->time >> 32;
		return dwc_set_regs(r);
	case DWC_ANSWER_TIME_TRAP:
		regs->rax = (uint32_t)inputs->time;
		regs->rdx = inputs->time >> 32;
		regs->rip = inputs->next_rip;
		return dwc_set_regs(r);
	case DWC_ANSWER_DEBUG:
		regs->rip = inputs->next_rip;
		inject(r, DB_VECTOR);
		events->exception_has_payload = 1;
		events->exception_payload = inputs->debug_payload;
		return dwc_set_regs(r);
	case DWC_ANSWER_UNDEFINED:
		inject(r, UD_VECTOR);
		return 0;
	default:
		return 0;
	}
}
