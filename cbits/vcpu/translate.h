/* Finds the guest physical address of a linear one. */
#ifndef DWC_VCPU_TRANSLATE_H
#define DWC_VCPU_TRANSLATE_H

#include <stdint.h>

struct dwc_insn;
struct dwc_replica;

int dwc_translate(struct dwc_replica *r, uint64_t linear, uint64_t *gpa);
void dwc_read_code(struct dwc_replica *r, uint64_t linear, uint8_t *code, unsigned length);
void dwc_insn_at(struct dwc_replica *r, uint64_t linear, struct dwc_insn *insn);

#endif
