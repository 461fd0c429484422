/* Leads from an interrupt line to the vector with which an element starts. */
#ifndef DWC_PC_INTERRUPTS_H
#define DWC_PC_INTERRUPTS_H

#include <stdint.h>

struct dwc_pc;

void dwc_pc_set_gsi(struct dwc_pc *pc, unsigned gsi, int high);
void dwc_pc_follow_pins(struct dwc_pc *pc);
void dwc_pc_set_virtio(struct dwc_pc *pc, unsigned slot, uint8_t status, uint8_t isr, uint8_t waiting);
void dwc_pc_send_msi(struct dwc_pc *pc, uint64_t address, uint32_t data);
int dwc_pc_interrupt_pending(const struct dwc_pc *pc);
int dwc_pc_interrupt_acknowledge(struct dwc_pc *pc);

#endif
