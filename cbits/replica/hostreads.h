/* What a learned site reads (sites/sites.c): the table of sites, and the registers that their instructions write. */
#ifndef DWC_REPLICA_HOSTREADS_H
#define DWC_REPLICA_HOSTREADS_H

#include <stdint.h>

#include "vcpu/insn.h"

#define DWC_MAX_SITES 256
#define DWC_HOT_READS 200000
#define DWC_TIME_PORT 0xf5 /* a port that no PC uses */

struct dwc_replica;
struct kvm_regs;

/* An instruction that was replaced by a trap. */
struct dwc_site {
	uint64_t gpa;
	struct dwc_insn read;
	uint8_t user;
	uint8_t original[DWC_LONGEST_INSTRUCTION]; /* its bytes */
};

struct dwc_sites {
	uint32_t count;
	int in_user;               /* how many are in ring 3, and need exits by debug exceptions */
	struct dwc_site site[DWC_MAX_SITES];
	uint64_t reads;            /* by all of them so far, */
	uint64_t reads_before;     /* and before the last one was learned */
	uint64_t hot_reads;        /* after so many they cost about what it costs to learn one */
};

const struct dwc_site *dwc_site_at(struct dwc_replica *r, uint64_t linear, int user);
const struct dwc_site *dwc_site_of_port(struct dwc_replica *r);
void dwc_write_read(struct kvm_regs *regs, const struct dwc_insn *read, uint64_t value, uint64_t aux);

#endif
