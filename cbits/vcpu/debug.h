/* Single steps, a breakpoint, exits by debug exceptions. */
#ifndef DWC_VCPU_DEBUG_H
#define DWC_VCPU_DEBUG_H

#include <stdint.h>

struct dwc_insn;
struct dwc_replica;

/* A single step in progress: whether the instruction needs special care, and where its stack was. */
struct dwc_step {
	int sysret, pushf;
	uint64_t rsp;
};

int dwc_can_step(const struct dwc_insn *insn);
int dwc_set_stepping(struct dwc_replica *r, int on);
int dwc_begin_step(struct dwc_replica *r, struct dwc_step *step);
int dwc_end_step(struct dwc_replica *r, const struct dwc_step *step);
int dwc_set_breakpoint(struct dwc_replica *r, uint64_t linear);
int dwc_at_breakpoint(const struct dwc_replica *r);
void dwc_resume_past(struct dwc_replica *r);

#endif
