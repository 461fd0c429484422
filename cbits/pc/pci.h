/* The answers for absent functions in PCI's configuration space (PCI Local Bus 3.0, 3.2.2.3). */
#ifndef DWC_PC_PCI_H
#define DWC_PC_PCI_H

#include <stdint.h>

struct dwc_pci {
	uint32_t address;    /* register at port 0xCF8 */
	uint8_t present[32]; /* functions of each device of bus 0, a bit each */
};

void dwc_pci_add(struct dwc_pci *p, unsigned device, unsigned function);
int dwc_pci_present(const struct dwc_pci *p, uint32_t address);
int dwc_pci_read(const struct dwc_pci *p, unsigned offset, unsigned size, uint8_t *data);
int dwc_pci_write(struct dwc_pci *p, unsigned offset, unsigned size, const uint8_t *data);

#endif
