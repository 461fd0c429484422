/* Configuration space of a PCI function (PCI Local Bus 3.0, chapter 6). */
#ifndef DWC_PC_PCIFUNCTION_H
#define DWC_PC_PCIFUNCTION_H

#include <stdint.h>

enum dwc_pci_kind { DWC_PCI_ABSENT, DWC_PCI_BRIDGE, DWC_PCI_VIRTIO };

/* Registers of 32 bits that functions of one kind have different values in, or that change. All others are constants of the kind. */
enum dwc_pci_kept {
	DWC_PCI_CONSTANT,
	DWC_PCI_ID,
	DWC_PCI_COMMAND, /* and status */
	DWC_PCI_CLASS,
	DWC_PCI_BAR,
	DWC_PCI_INTERRUPT,
	DWC_PCI_WINDOW_BAR, /* and the next two: virtio's pci_cfg */
	DWC_PCI_WINDOW_OFFSET,
	DWC_PCI_WINDOW_LENGTH,
	DWC_PCI_MSIX, /* capability, and message control */
	DWC_PCI_KEPT
};

#define DWC_PCI_BYTES 256 /* what lies beyond, up to 4 KiB, reads as 0 */
#define DWC_PCI_WINDOW_DATA 0x94 /* offset of virtio's pci_cfg_data */
#define DWC_PCI_MSIX_CONTROL 0x9a

#define DWC_PCI_MEMORY_SPACE (1u << 1) /* of COMMAND */
#define DWC_PCI_BUS_MASTER (1u << 2)
#define DWC_PCI_MSIX_ENABLE (1u << 31) /* of MSIX */
#define DWC_PCI_MSIX_MASKED (1u << 30)

struct dwc_pci_function {
	uint8_t kind; /* enum dwc_pci_kind */
	/* of virtio */
	uint8_t queues;  /* how many it has */
	uint8_t waiting; /* those that the guest has notified, a bit each */
	uint8_t status, isr;
	uint32_t kept[DWC_PCI_KEPT - 1]; /* by enum dwc_pci_kept, from DWC_PCI_ID on */
};

uint32_t dwc_pci_kept(const struct dwc_pci_function *f, enum dwc_pci_kept kept);
void dwc_pci_make_bridge(struct dwc_pci_function *f);
void dwc_pci_make_virtio(struct dwc_pci_function *f, uint8_t type, uint32_t class_code, uint8_t queues, uint32_t base, uint8_t irq);
void dwc_pci_read_registers(const struct dwc_pci_function *f, unsigned at, unsigned size, uint8_t *data);
void dwc_pci_write_registers(struct dwc_pci_function *f, unsigned at, unsigned size, const uint8_t *data);
int dwc_pci_follow(struct dwc_pci_function *f);

#endif
