/* Classifies instructions by their first bytes. */
#ifndef DWC_VCPU_INSN_H
#define DWC_VCPU_INSN_H

#include <stdint.h>

#define DWC_LONGEST_INSTRUCTION 15

enum dwc_insn_kind {
	DWC_INSN_OTHER,
	/* reads of a value of the host: a clock, randomness, the number of a CPU, which registers are in use. None of them can be
	 * trapped on every stock KVM */
	DWC_READ_RDTSC,
	DWC_READ_RDTSCP,
	DWC_READ_RDRAND,
	DWC_READ_RDSEED,
	DWC_READ_RDPID,
	DWC_READ_XGETBV,
	DWC_INSN_STRING,   /* with a repeat prefix: started again after each interrupt, at the same RIP and with fewer turns left */
	DWC_INSN_PUSHF,
	DWC_INSN_STI,
	DWC_INSN_LOAD_SS,  /* MOV SS, POP SS */
	DWC_INSN_INT,      /* INT n, INT3, INTO */
	DWC_INSN_ICEBP,
	DWC_INSN_HLT,
	DWC_INSN_SYSCALL,  /* and SYSENTER, SYSEXIT */
	DWC_INSN_SYSRET,
};

struct dwc_insn {
	uint8_t kind;       /* enum dwc_insn_kind */
	uint8_t prefixes;   /* bytes before its opcode */
	uint8_t length;     /* all its bytes; 0: not known (OTHER, LOAD_SS) */
	uint8_t reg, bytes; /* RDRAND, RDSEED, RDPID: number of the register that is written, and how many bytes of it; else 0 */
};

void dwc_decode(const uint8_t *code, unsigned bits, struct dwc_insn *insn);
int dwc_reads_host(const struct dwc_insn *insn);

#endif
