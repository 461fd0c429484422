/* vCPU state: read at every exit, compared, restored at a rollback. */
#ifndef DWC_VCPU_STATE_H
#define DWC_VCPU_STATE_H

#include <linux/kvm.h>
#include <stdint.h>

#define DWC_RFLAGS_RF (1ull << 16)
#define DWC_MAX_MSRS 64

struct dwc_replica;
struct dwc_stats;

struct dwc_msrs {
	uint32_t count, pad;
	struct kvm_msr_entry entries[DWC_MAX_MSRS];
};

/* Every piece of vCPU state that is saved, compared and restored (docs/state-table.md). The first three
 * groups come with each KVM_RUN, the others cost an ioctl each and are read at checkpoints only. */
struct dwc_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_xcrs xcrs;
	struct kvm_xsave xsave;
	struct dwc_msrs msrs;
};

int dwc_state_prime(struct dwc_replica *r);
int dwc_state_get(struct dwc_replica *r, struct dwc_state *out);
int dwc_set_regs(struct dwc_replica *r);
uint64_t dwc_linear_rip(const struct dwc_state *s);
unsigned dwc_code_bits(const struct kvm_sregs *s);
void dwc_state_get_synced(struct dwc_replica *r, struct dwc_state *out);
int dwc_state_set(struct dwc_replica *r, const struct dwc_state *in, int flush_tlb);
int dwc_flush_tlb(struct dwc_replica *r, const struct kvm_sregs *sregs);
int dwc_set_msrs(struct dwc_replica *r, const struct dwc_msrs *msrs);
uint64_t dwc_state_sum_synced(uint64_t sum, const struct dwc_state *s);
uint64_t dwc_state_sum_xsave(const struct dwc_state *s);
uint64_t dwc_state_sum_msrs(const struct dwc_state *s);
uint64_t dwc_state_sum_others(const struct dwc_state *s);
uint32_t dwc_state_compare(struct dwc_state *a, struct dwc_state *b, struct dwc_stats *stats);
uint32_t dwc_state_compare_synced(struct dwc_state *a, struct dwc_state *b, struct dwc_stats *stats);

#endif
