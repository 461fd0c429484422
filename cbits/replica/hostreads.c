/* What a learned site reads: which site a trap belongs to, and what its instruction does to registers. */
#include "replica/hostreads.h"

#include <linux/kvm.h>

#include "engine.h"
#include "replica/replica.h"
#include "vcpu/exit.h"
#include "vcpu/translate.h"

#define RFLAGS_STATUS 0x8d5u /* CF, PF, AF, ZF, SF, OF */
#define RFLAGS_CF 1u

/* The site at a linear address, or NULL. */
const struct dwc_site *dwc_site_at(struct dwc_replica *r, uint64_t linear, int user)
{
	const struct dwc_sites *sites = &r->engine->sites;
	uint64_t gpa;

	if (sites->count && dwc_translate(r, linear, &gpa))
		for (uint32_t i = 0; i < sites->count; i++)
			if (sites->site[i].gpa == gpa && sites->site[i].user == user)
				return &sites->site[i];
	return NULL;
}

/* The site at whose IN the replica stands, or NULL. The address decides: the guest's own code may use the same port. */
const struct dwc_site *dwc_site_of_port(struct dwc_replica *r)
{
	const struct kvm_sync_regs *now = &r->run->s.regs;
	const struct dwc_exit *x = &r->exit;

	if (x->reason != KVM_EXIT_IO || x->port != DWC_TIME_PORT || x->is_write || x->size != 4 || x->count != 1)
		return NULL;
	return dwc_site_at(r, now->regs.rip + now->sregs.cs.base, 0);
}

/* A general register by its number in an instruction. */
static __u64 *numbered(struct kvm_regs *regs, unsigned number)
{
	__u64 *by_number[] = { &regs->rax, &regs->rcx, &regs->rdx, &regs->rbx, &regs->rsp, &regs->rbp, &regs->rsi, &regs->rdi,
			       &regs->r8, &regs->r9, &regs->r10, &regs->r11, &regs->r12, &regs->r13, &regs->r14, &regs->r15 };

	return by_number[number & 15];
}

/* A write of 4 bytes clears the upper half, a write of 2 leaves the rest (SDM 1 3.4.1.1). */
static void write_operand(struct kvm_regs *regs, const struct dwc_insn *read, uint64_t value)
{
	__u64 *to = numbered(regs, read->reg);

	if (read->bytes == 2)
		*to = (*to & ~0xffffull) | (value & 0xffff);
	else
		*to = read->bytes == 4 ? (uint32_t)value : value;
}

/* Set registers as the instruction of a site would. `aux`: TSC_AUX, which RDTSCP reads, too. */
void dwc_write_read(struct kvm_regs *regs, const struct dwc_insn *read, uint64_t value, uint64_t aux)
{
	switch (read->kind) {
	case DWC_READ_RDRAND: case DWC_READ_RDSEED: /* CF: there was a number */
		write_operand(regs, read, value);
		regs->rflags = (regs->rflags & ~(uint64_t)RFLAGS_STATUS) | RFLAGS_CF;
		break;
	case DWC_READ_RDPID:
		write_operand(regs, read, value);
		break;
	default: /* EDX:EAX, and ECX of RDTSCP */
		if (read->kind == DWC_READ_RDTSCP)
			regs->rcx = aux;
		regs->rax = (uint32_t)value;
		regs->rdx = value >> 32;
	}
}
