/* What an instruction is to the engine, by its first bytes. */
#ifndef DWC_VCPU_INSN_H
#define DWC_VCPU_INSN_H

#include <stdint.h>

#define DWC_LONGEST_INSTRUCTION 15
#define DWC_LONGEST_READ 6 /* of dwc_host_read_at() */

/* An instruction that reads what is the host's (insn.c). */
enum dwc_read_kind {
	DWC_READ_NOTHING,
	DWC_READ_RDTSC,
	DWC_READ_RDTSCP,
	DWC_READ_RDRAND,
	DWC_READ_RDSEED,
	DWC_READ_RDPID,
	DWC_READ_XGETBV,
};

struct dwc_host_read {
	uint8_t kind, length;
	uint8_t reg, bytes; /* the operand of those that have one: number of the register, and how much of it is written */
};

unsigned dwc_repeated_string(const uint8_t *code, int long_mode);
void dwc_host_read_at(const uint8_t *code, unsigned bits, struct dwc_host_read *read);

#endif
