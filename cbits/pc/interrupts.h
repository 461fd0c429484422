/* From an interrupt line to the vector that starts an element. */
#ifndef DWC_PC_INTERRUPTS_H
#define DWC_PC_INTERRUPTS_H

#include <stdint.h>

struct dwc_engine;

void dwc_set_gsi(struct dwc_engine *e, unsigned gsi, int high);
void dwc_send_msi(struct dwc_engine *e, uint64_t address, uint32_t data);
int dwc_interrupt_pending(const struct dwc_engine *e);
int dwc_interrupt_acknowledge(struct dwc_engine *e);

#endif
