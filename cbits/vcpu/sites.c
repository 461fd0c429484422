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
#include "vcpu/sites.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>
#include <x86intrin.h>

#include "engine.h"
#include "host.h"
#include "memory/dma.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "vcpu/debug.h"
#include "vcpu/exit.h"
#include "vcpu/insn.h"
#include "vcpu/search.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"

#define ICEBP 0xf1
#define NOP 0x90
#define DB_VECTOR 1
#define UD_VECTOR 6
#define RFLAGS_STATUS 0x8d5u /* CF, PF, AF, ZF, SF, OF */
#define RFLAGS_CF 1u
#define DR6_ACTIVE_LOW 0xffff0ff0ull /* bits that are set where nothing happened (SDM 3B 18.2.3) */

const uint8_t dwc_port_trap[DWC_LONGEST_READ] = { 0xe5, DWC_TIME_PORT, NOP, NOP, NOP, NOP };
const uint8_t dwc_sysenter_trap[DWC_LONGEST_READ] = { 0x0f, 0x34, NOP, NOP, NOP, NOP };
static const uint8_t icebp_trap[DWC_LONGEST_READ] = { ICEBP, NOP, NOP, NOP, NOP, NOP };

static int job_refresh_guest_debug(struct dwc_replica *r)
{
	return dwc_set_stepping(r, 0);
}

/* Put the trap where the last search has ended. The replicas stand at the checkpoint. */
int dwc_learn_site(struct dwc_engine *e)
{
	const struct dwc_search *found = &e->search;
	int user = found->user;
	const uint8_t *code = !user ? dwc_port_trap : e->user_trap == DWC_USER_TRAP_ICEBP ? icebp_trap : dwc_sysenter_trap;
	struct dwc_site *site;
	int err;

	if ((err = dwc_memory_write(e, found->gpa, code, found->read.length)))
		return err;
	for (site = e->sites; site < e->sites + e->site_count; site++)
		if (site->gpa == found->gpa) { /* the guest had put the instruction there again, or another one */
			site->read = found->read;
			return 0;
		}
	if (e->site_count == DWC_MAX_SITES)
		return -ENOSPC;
	e->site_count++;
	site->gpa = found->gpa;
	site->read = found->read;
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

/* Never the same twice. The frozen TSC's successor; where the TSC runs the guest clock, from the host's TSC on at the first site, which is
 * more than what the guest has read by itself, as a VM's own TSC begins at 0. (What it reads by itself later is undone, as the replicas' TSCs
 * are apart. Where the host does not let them be, as on kvm_pvm, both can read the same, and a site then an earlier time.) */
uint64_t dwc_next_time(struct dwc_engine *e)
{
	uint64_t now = e->inputs.tsc;

	if (!e->tsc_ratio) {
		if (!e->site_base)
			e->site_base = __rdtsc() - e->guest_ns;
		now = e->site_base + e->guest_ns;
	}
	e->site_time = now > e->site_time ? now : e->site_time + 1;
	return e->site_time;
}

/* XCR0 as it is now: the guest can have changed it since the checkpoint. */
static uint64_t enabled_registers(const struct dwc_engine *e)
{
	struct kvm_xcrs xcrs;

	if (dwc_ioctl(e->replicas[0].vcpu_fd, KVM_GET_XCRS, &xcrs) < 0 || !xcrs.nr_xcrs)
		return e->checkpoint.xcrs.xcrs[0].value;
	return xcrs.xcrs[0].value;
}

/* What the instruction reads, and where it goes on. */
static void supply(struct dwc_engine *e, const struct dwc_host_read *read, uint64_t rip)
{
	struct dwc_inputs *inputs = &e->inputs;

	e->site_reads++;
	inputs->read = *read;
	inputs->next_rip = rip + read->length;
	inputs->value = inputs->aux = e->tsc_aux;
	switch (read->kind) {
	case DWC_READ_RDTSC: case DWC_READ_RDTSCP:
		inputs->value = dwc_next_time(e);
		break;
	case DWC_READ_RDRAND: case DWC_READ_RDSEED:
		if (getrandom(&inputs->value, sizeof inputs->value, GRND_NONBLOCK) < 0)
			inputs->value = dwc_next_time(e);
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
	int user = x->reason != KVM_EXIT_IO, behind = x->reason == KVM_EXIT_DEBUG && e->icebp_rip_after;
	const struct dwc_site *site;

	if (!user && (x->port != DWC_TIME_PORT || x->is_write || x->size != 4 || x->count != 1))
		return 0;
	if (!e->site_count || !(site = site_at(e, dwc_linear_rip(s) - (uint64_t)behind, user)))
		return 0;
	supply(e, &site->read, s->regs.rip - (uint64_t)behind);
	e->inputs.answer = user ? DWC_ANSWER_SITE_TRAP : DWC_ANSWER_SITE_PORT;
	return 1;
}

/* Where no trap can stand: both replicas are before the instruction that the last search has found, and the element that starts
 * there gets its result instead of executing it. */
void dwc_pass_host_read(struct dwc_engine *e)
{
	supply(e, &e->search.read, e->replicas[0].state.regs.rip);
	e->inputs.answer = DWC_ANSWER_SITE_TRAP;
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

/* A general register by its number in an instruction. */
static __u64 *numbered(struct kvm_regs *regs, unsigned number)
{
	__u64 *by_number[] = { &regs->rax, &regs->rcx, &regs->rdx, &regs->rbx, &regs->rsp, &regs->rbp, &regs->rsi, &regs->rdi,
			       &regs->r8, &regs->r9, &regs->r10, &regs->r11, &regs->r12, &regs->r13, &regs->r14, &regs->r15 };

	return by_number[number & 15];
}

/* A write of 4 bytes clears those above, one of 2 leaves them (SDM 1 3.4.1.1). */
static void write_operand(struct kvm_regs *regs, const struct dwc_host_read *read, uint64_t value)
{
	__u64 *to = numbered(regs, read->reg);

	if (read->bytes == 2)
		*to = (*to & ~0xffffull) | (value & 0xffff);
	else
		*to = read->bytes == 4 ? (uint32_t)value : value;
}

/* What the instruction of a site does to the registers. */
static void write_read(struct kvm_regs *regs, const struct dwc_inputs *inputs)
{
	switch (inputs->read.kind) {
	case DWC_READ_RDRAND: case DWC_READ_RDSEED: /* CF: there was one */
		write_operand(regs, &inputs->read, inputs->value);
		regs->rflags = (regs->rflags & ~(uint64_t)RFLAGS_STATUS) | RFLAGS_CF;
		break;
	case DWC_READ_RDPID:
		write_operand(regs, &inputs->read, inputs->value);
		break;
	default: /* EDX:EAX, and ECX of RDTSCP */
		if (inputs->read.kind == DWC_READ_RDTSCP)
			regs->rcx = inputs->aux;
		regs->rax = (uint32_t)inputs->value;
		regs->rdx = inputs->value >> 32;
	}
}

/* Registers that the answer sets, at the start of the element; on the owning thread. */
int dwc_give_answer(struct dwc_replica *r)
{
	struct kvm_vcpu_events *events = &r->run->s.regs.events;
	const struct dwc_inputs *inputs = &r->engine->inputs;
	struct kvm_regs *regs = &r->run->s.regs.regs;
	uint64_t rax = regs->rax;
	int err;

	switch (inputs->answer) {
	case DWC_ANSWER_SITE_PORT:
		/* no register may be set while the IN is pending; this run leaves the sync regs behind it, and something in EAX */
		if ((err = dwc_replica_complete(r)))
			return err;
		regs->rax = rax;
		regs->rip = inputs->next_rip;
		write_read(regs, inputs);
		return dwc_set_regs(r);
	case DWC_ANSWER_SITE_TRAP:
		write_read(regs, inputs);
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
