/* PCI bus 0, and the ways to its functions: ports 0xCF8 and 0xCFC, configuration space in memory, base addresses. */
#ifndef DWC_PC_PCI_H
#define DWC_PC_PCI_H

#include <stdint.h>

#include "pc/pcifunction.h"

#define DWC_PCI_SLOTS 32
#define DWC_PCI_ISA_IRQ(slot) ((slot) % 4 < 2 ? 10 : 11) /* of pin A: as SeaBIOS has it on a q35 */

struct dwc_access;

/* Each device has one function. */
struct dwc_pci {
	uint32_t address; /* register at port 0xCF8 */
	uint32_t waiting; /* slots whose device has to process queues, a bit each */
	uint32_t pins;    /* slots whose pin A is asserted */
	uint32_t driven;  /* those for which interrupt lines have been set (interrupts.c) */
	struct dwc_pci_function function[DWC_PCI_SLOTS];
};

void dwc_pci_init(struct dwc_pci *p);
int dwc_pci_add_virtio(struct dwc_pci *p, unsigned slot, uint8_t type, uint32_t class_code, uint8_t queues, uint32_t base);
int dwc_pci_ports(struct dwc_pci *p, const struct dwc_access *a);
int dwc_pci_ecam(struct dwc_pci *p, const struct dwc_access *a);
int dwc_pci_memory(struct dwc_pci *p, const struct dwc_access *a);
void dwc_pci_update(struct dwc_pci *p, unsigned slot);

#endif
