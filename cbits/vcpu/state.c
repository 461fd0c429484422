/* vCPU state: read at every exit, compared, restored at a rollback. REGS, SREGS and EVENTS come
 * with KVM_RUN (KVM_CAP_SYNC_REGS); the other groups cost an ioctl each. */
#include "vcpu/state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "replica/replica.h"
#include "stats.h"
#include "status.h"
#include "sum.h"

#define CR4_PGE (1ull << 7)
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define XSAVE_SOFTWARE 464 /* to the end of the legacy region's registers */
#define XSAVE_VALUES 576   /* after the header */

/* Fill the run page's copy of these groups, before the first KVM_RUN does. */
int dwc_state_prime(struct dwc_replica *r)
{
	long err;

	if ((err = dwc_ioctl(r->vcpu_fd, KVM_GET_REGS, &r->run->s.regs.regs)) < 0 ||
	    (err = dwc_ioctl(r->vcpu_fd, KVM_GET_SREGS, &r->run->s.regs.sregs)) < 0 ||
	    (err = dwc_ioctl(r->vcpu_fd, KVM_GET_VCPU_EVENTS, &r->run->s.regs.events)) < 0)
		return (int)err;
	return 0;
}

/* The synced groups, as KVM_RUN left them in the run page. */
void dwc_state_get_synced(struct dwc_replica *r, struct dwc_state *out)
{
	out->regs = r->run->s.regs.regs;
	out->sregs = r->run->s.regs.sregs;
	out->events = r->run->s.regs.events;
	/* sync regs set bits here and never clear them (__get_sregs in x86.c); EVENTS has the same, in time */
	memset(out->sregs.interrupt_bitmap, 0, sizeof out->sregs.interrupt_bitmap);
}

/* Set the general registers to the run page's values. By ioctl, because single steps that are switched on afterwards use the RIP
 * that KVM knows at that time (__kvm_set_rflags), for which sync regs would be too late. */
int dwc_set_regs(struct dwc_replica *r)
{
	r->run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_REGS;
	return (int)dwc_ioctl(r->vcpu_fd, KVM_SET_REGS, &r->run->s.regs.regs);
}

/* Linear address of the next instruction; only in real mode and with odd segments CS has a base. */
uint64_t dwc_linear_rip(const struct dwc_state *s)
{
	return s->regs.rip + s->sregs.cs.base;
}

/* How instructions are decoded: 64, 32 or 16 bits. */
unsigned dwc_code_bits(const struct kvm_sregs *s)
{
	return s->cs.l ? 64 : s->cs.db ? 32 : 16;
}

/* Read the groups that do not come with an exit. */
static int get_others(struct dwc_replica *r, struct dwc_state *out)
{
	long err;

	if ((err = dwc_ioctl(r->vcpu_fd, KVM_GET_XSAVE, &out->xsave)) < 0)
		return (int)err;
	if ((err = dwc_ioctl(r->vcpu_fd, KVM_GET_DEBUGREGS, &out->debugregs)) < 0)
		return (int)err;
	if (r->engine->config.has_xcrs && (err = dwc_ioctl(r->vcpu_fd, KVM_GET_XCRS, &out->xcrs)) < 0)
		return (int)err;
	out->msrs.count = r->engine->config.msr_count;
	for (uint32_t i = 0; i < out->msrs.count; i++)
		out->msrs.entries[i].index = r->engine->config.msr_index[i];
	err = dwc_ioctl(r->vcpu_fd, KVM_GET_MSRS, &out->msrs);
	if (err < 0)
		return (int)err;
	return (uint32_t)err == out->msrs.count ? 0 : -ENXIO;
}

/* Read all groups. */
int dwc_state_get(struct dwc_replica *r, struct dwc_state *out)
{
	enum dwc_activity before = dwc_enter(r, DWC_AT_REGISTERS);
	int err;

	dwc_state_get_synced(r, out);
	err = get_others(r, out);
	dwc_leave(r, before);
	return err;
}

/* Set SREGS, and flush the guest's TLB entries: KVM does that if CR4 changes (__set_sregs). */
int dwc_flush_tlb(struct dwc_replica *r, const struct kvm_sregs *sregs)
{
	struct kvm_sregs s = *sregs;
	long err;

	s.cr4 ^= CR4_PGE;
	if ((err = dwc_ioctl(r->vcpu_fd, KVM_SET_SREGS, &s)) < 0)
		return (int)err;
	s.cr4 ^= CR4_PGE;
	return (int)dwc_ioctl(r->vcpu_fd, KVM_SET_SREGS, &s);
}

int dwc_set_msrs(struct dwc_replica *r, const struct dwc_msrs *msrs)
{
	long count = dwc_ioctl(r->vcpu_fd, KVM_SET_MSRS, (void *)msrs);

	if (count < 0)
		return (int)count;
	return (uint32_t)count == msrs->count ? 0 : -ENXIO;
}

/* Order: KVM api.rst and x86.c. SREGS before REGS; EVENTS after REGS, because KVM_SET_REGS drops
 * pending exceptions; run->cr8 because KVM_RUN writes it back without an in-kernel LAPIC. */
int dwc_state_set(struct dwc_replica *r, const struct dwc_state *in, int flush_tlb)
{
	struct dwc_state s = *in;
	long err;

	err = flush_tlb ? dwc_flush_tlb(r, &s.sregs) : dwc_ioctl(r->vcpu_fd, KVM_SET_SREGS, &s.sregs);
	if (err < 0)
		return (int)err;
	if ((err = dwc_ioctl(r->vcpu_fd, KVM_SET_REGS, &s.regs)) < 0)
		return (int)err;
	if ((err = dwc_set_msrs(r, &s.msrs)))
		return (int)err;
	if (r->engine->config.has_xcrs && (err = dwc_ioctl(r->vcpu_fd, KVM_SET_XCRS, &s.xcrs)) < 0)
		return (int)err;
	if ((err = dwc_ioctl(r->vcpu_fd, KVM_SET_XSAVE, &s.xsave)) < 0)
		return (int)err;
	if ((err = dwc_ioctl(r->vcpu_fd, KVM_SET_DEBUGREGS, &s.debugregs)) < 0)
		return (int)err;
	if ((err = dwc_ioctl(r->vcpu_fd, KVM_SET_VCPU_EVENTS, &s.events)) < 0)
		return (int)err;
	r->run->cr8 = s.sregs.cr8;
	/* keep the run page in step with KVM's state: changes of registers there start from it */
	r->run->s.regs.regs = s.regs;
	r->run->s.regs.sregs = s.sregs;
	r->run->s.regs.events = s.events;
	r->run->kvm_dirty_regs = 0;
	return 0;
}

/* The attributes of an unusable segment have no meaning (SDM 3C 24.4.1), and KVM does not keep
 * them equal: only the fact that both are unusable counts. */
static int same_segment(const struct kvm_segment *a, const struct kvm_segment *b, struct dwc_stats *stats)
{
	if (!memcmp(a, b, offsetof(struct kvm_segment, padding)))
		return 1;
	if (a->unusable && b->unusable && a->base == b->base) {
		stats->normalised_unusable++;
		return 1;
	}
	return 0;
}

static int same_sregs(const struct kvm_sregs *a, const struct kvm_sregs *b, struct dwc_stats *stats)
{
	const struct kvm_segment *sa = &a->cs, *sb = &b->cs; /* cs ds es fs gs ss tr ldt, in a row */

	for (int i = 0; i < 8; i++)
		if (!same_segment(&sa[i], &sb[i], stats))
			return 0;
	return a->gdt.base == b->gdt.base && a->gdt.limit == b->gdt.limit && a->idt.base == b->idt.base &&
	       a->idt.limit == b->idt.limit && a->cr0 == b->cr0 && a->cr2 == b->cr2 && a->cr3 == b->cr3 &&
	       a->cr4 == b->cr4 && a->cr8 == b->cr8 && a->efer == b->efer && a->apic_base == b->apic_base;
}

/* KVM keeps the number of the last event, delivered or not, and may have injected it again after a write fault during its
 * delivery. Only events that are still to be delivered are state of the guest. */
static void drop_delivered(struct kvm_vcpu_events *events)
{
	if (!events->exception.injected && !events->exception.pending) {
		memset(&events->exception, 0, sizeof events->exception);
		events->exception_has_payload = 0;
		events->exception_payload = 0;
	}
	if (!events->interrupt.injected) {
		events->interrupt.nr = 0;
		events->interrupt.soft = 0;
	}
}

static int same_events(const struct kvm_vcpu_events *a, const struct kvm_vcpu_events *b)
{
	struct kvm_vcpu_events x = *a, y = *b;

	drop_delivered(&x);
	drop_delivered(&y);
	return !memcmp(&x, &y, sizeof x);
}

/* Compare values. Bytes 464-511 belong to software, and XSTATE_BV (512-575) may differ although all registers are
 * equal; KVM writes the initial values of components that it marks unused. */
static int same_xsave(const struct kvm_xsave *a, const struct kvm_xsave *b)
{
	const uint8_t *pa = (const uint8_t *)a->region, *pb = (const uint8_t *)b->region;

	return !memcmp(pa, pb, XSAVE_SOFTWARE) && !memcmp(pa + XSAVE_VALUES, pb + XSAVE_VALUES, sizeof a->region - XSAVE_VALUES);
}

uint32_t dwc_state_compare_synced(struct dwc_state *a, struct dwc_state *b, struct dwc_stats *stats)
{
	uint32_t diff = 0;

	if (memcmp(&a->regs, &b->regs, sizeof a->regs)) {
		struct kvm_regs masked = b->regs;

		/* VM exits save RF as interrupt delivery would (SDM 3C 28.3.3) */
		masked.rflags = (masked.rflags & ~DWC_RFLAGS_RF) | (a->regs.rflags & DWC_RFLAGS_RF);
		if (memcmp(&a->regs, &masked, sizeof masked))
			diff |= DWC_DIFF_REGS;
		else
			stats->normalised_rf++;
	}
	if (!same_sregs(&a->sregs, &b->sregs, stats))
		diff |= DWC_DIFF_SREGS;
	if (!same_events(&a->events, &b->events))
		diff |= DWC_DIFF_EVENTS;
	return diff;
}

uint32_t dwc_state_compare(struct dwc_state *a, struct dwc_state *b, struct dwc_stats *stats)
{
	uint32_t diff = dwc_state_compare_synced(a, b, stats);

	if (!same_xsave(&a->xsave, &b->xsave))
		diff |= DWC_DIFF_XSAVE;
	if (memcmp(a->msrs.entries, b->msrs.entries, a->msrs.count * sizeof a->msrs.entries[0]))
		diff |= DWC_DIFF_MSRS;
	if (memcmp(&a->debugregs, &b->debugregs, sizeof a->debugregs))
		diff |= DWC_DIFF_DEBUGREGS;
	if (memcmp(a->xcrs.xcrs, b->xcrs.xcrs, a->xcrs.nr_xcrs * sizeof a->xcrs.xcrs[0]))
		diff |= DWC_DIFF_XCRS;
	return diff;
}

static uint64_t sum_of_segment(uint64_t sum, const struct kvm_segment *s)
{
	if (s->unusable)
		return dwc_sum(sum, &s->base, sizeof s->base);
	return dwc_sum(sum, s, offsetof(struct kvm_segment, padding));
}

static uint64_t sum_of_sregs(uint64_t sum, const struct kvm_sregs *s)
{
	const struct kvm_segment *segments = &s->cs; /* as in same_sregs() */
	const uint64_t others[] = { s->gdt.base, s->gdt.limit, s->idt.base, s->idt.limit, s->cr0, s->cr2,
				    s->cr3, s->cr4, s->cr8, s->efer, s->apic_base };

	for (int i = 0; i < 8; i++)
		sum = sum_of_segment(sum, &segments[i]);
	return dwc_sum(sum, others, sizeof others);
}

/* Continue a sum (sum.h) with the synced groups. Like the next ones, it is the same of states that dwc_state_compare() finds equal. */
uint64_t dwc_state_sum_synced(uint64_t sum, const struct dwc_state *s)
{
	struct kvm_regs regs = s->regs;
	struct kvm_vcpu_events events = s->events;

	regs.rflags &= ~DWC_RFLAGS_RF;
	drop_delivered(&events);
	sum = dwc_sum(sum, &regs, sizeof regs);
	sum = sum_of_sregs(sum, &s->sregs);
	return dwc_sum(sum, &events, sizeof events);
}

uint64_t dwc_state_sum_xsave(const struct dwc_state *s)
{
	const uint8_t *xsave = (const uint8_t *)s->xsave.region;

	return dwc_sum(dwc_sum(1, xsave, XSAVE_SOFTWARE), xsave + XSAVE_VALUES, sizeof s->xsave.region - XSAVE_VALUES);
}

/* kvm_amd drops the upper halves of two MSRs when they are set, as in a rollback, but not when the guest writes them (svm_set_msr). */
uint64_t dwc_state_sum_msrs(const struct dwc_state *s)
{
	uint64_t sum = 1, value;

	for (uint32_t i = 0; i < s->msrs.count; i++) {
		value = s->msrs.entries[i].data;
		if (s->msrs.entries[i].index == MSR_SYSENTER_ESP || s->msrs.entries[i].index == MSR_SYSENTER_EIP)
			value = (uint32_t)value;
		sum = dwc_sum(sum, &value, sizeof value);
	}
	return sum;
}

/* Debug registers and XCRs. */
uint64_t dwc_state_sum_others(const struct dwc_state *s)
{
	return dwc_sum(dwc_sum(1, &s->debugregs, sizeof s->debugregs), s->xcrs.xcrs, s->xcrs.nr_xcrs * sizeof s->xcrs.xcrs[0]);
}
