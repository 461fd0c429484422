/* Configuration space of the two kinds of functions there are, as tables of registers: a constant, or a register that is kept for each
 * function and its bits that a guest may write. */
#include "pc/pcifunction.h"

#include <string.h>

#include "pc/virtio.h"

#define COMMAND_WRITABLE 0x0547 /* I/O, memory, bus master, parity, SERR, INTx disable */
#define INTX_DISABLE (1u << 10)
#define INTERRUPT_STATUS (1u << 19) /* of COMMAND: in the status */
#define CAPABILITY_LIST (1u << 20)
#define PIN_A 0x0100

/* as on QEMU's q35: guests know that this bridge (Intel 82G33, "MCH") has its configuration space in memory */
#define BRIDGE_ID 0x29c08086
#define BRIDGE_CLASS 0x06000000
#define QEMU 0x11001af4         /* without this subsystem SeaBIOS does not ask fw_cfg */
#define RAM_NOT_ROM 0x33333333u /* programmable attribute map: RAM from 0xC0000 to 1 MiB */

#define VIRTIO_ID 0x10401af4 /* plus the type of the device */
#define VIRTIO_REVISION 1

/* a capability of virtio (virtio 1.2, 4.1.4): the first of its registers */
enum { COMMON_CFG = 1, NOTIFY_CFG, ISR_CFG, DEVICE_CFG, PCI_CFG };
#define VENDOR_CAPABILITY 0x09
#define CAPABILITY(bytes, kind, next) (VENDOR_CAPABILITY | (next) << 8 | (bytes) << 16 | (kind) << 24)
#define MSIX_CAPABILITY 0x11
#define MSIX_WRITABLE (DWC_PCI_MSIX_ENABLE | DWC_PCI_MSIX_MASKED)

struct pci_register {
	uint32_t value;    /* of a constant */
	uint32_t writable; /* of a register that is kept */
	enum dwc_pci_kept kept;
};

#define CONSTANT(at, content) [(at) / 4] = { .value = (content) }
#define KEPT(at, what, mask) [(at) / 4] = { .kept = (what), .writable = (mask) }

static const struct pci_register bridge[DWC_PCI_BYTES / 4] = {
	CONSTANT(0x00, BRIDGE_ID),
	KEPT(0x04, DWC_PCI_COMMAND, COMMAND_WRITABLE),
	CONSTANT(0x08, BRIDGE_CLASS),
	CONSTANT(0x2c, QEMU),
	KEPT(0x3c, DWC_PCI_INTERRUPT, 0xff),
	CONSTANT(0x90, RAM_NOT_ROM),
	CONSTANT(0x94, RAM_NOT_ROM >> 8),
};

static const struct pci_register virtio[DWC_PCI_BYTES / 4] = {
	KEPT(0x00, DWC_PCI_ID, 0),
	KEPT(0x04, DWC_PCI_COMMAND, COMMAND_WRITABLE),
	KEPT(0x08, DWC_PCI_CLASS, 0),
	KEPT(0x10, DWC_PCI_BAR, ~(DWC_VIRTIO_BYTES - 1u)),
	KEPT(0x2c, DWC_PCI_ID, 0), /* the subsystem */
	CONSTANT(0x34, 0x40),
	KEPT(0x3c, DWC_PCI_INTERRUPT, 0xff),
	/* capabilities: kind and length, number of the BAR, offset there, length there */
	CONSTANT(0x40, CAPABILITY(16, COMMON_CFG, 0x50)),
	CONSTANT(0x48, DWC_VIRTIO_COMMON),
	CONSTANT(0x4c, DWC_VIRTIO_COMMON_BYTES),
	CONSTANT(0x50, CAPABILITY(16, ISR_CFG, 0x60)),
	CONSTANT(0x58, DWC_VIRTIO_ISR),
	CONSTANT(0x5c, 1),
	CONSTANT(0x60, CAPABILITY(16, DEVICE_CFG, 0x70)),
	CONSTANT(0x68, DWC_VIRTIO_DEVICE),
	CONSTANT(0x6c, DWC_VIRTIO_PART),
	CONSTANT(0x70, CAPABILITY(20, NOTIFY_CFG, 0x84)),
	CONSTANT(0x78, DWC_VIRTIO_NOTIFY),
	CONSTANT(0x7c, DWC_VIRTIO_PART),
	CONSTANT(0x80, DWC_VIRTIO_NOTIFY_BYTES),
	CONSTANT(0x84, CAPABILITY(20, PCI_CFG, 0x98)),
	KEPT(0x88, DWC_PCI_WINDOW_BAR, 0xff),
	KEPT(0x8c, DWC_PCI_WINDOW_OFFSET, 0xffffffff),
	KEPT(0x90, DWC_PCI_WINDOW_LENGTH, 0xffffffff),
	KEPT(0x98, DWC_PCI_MSIX, MSIX_WRITABLE),
	CONSTANT(0x9c, DWC_VIRTIO_TABLE),
	CONSTANT(0xa0, DWC_VIRTIO_PENDING),
};

static const struct pci_register *table(const struct dwc_pci_function *f)
{
	return f->kind == DWC_PCI_VIRTIO ? virtio : bridge;
}

/* The present value of a register that is kept. */
uint32_t dwc_pci_kept(const struct dwc_pci_function *f, enum dwc_pci_kept kept)
{
	return f->kept[kept - 1];
}

static void set(struct dwc_pci_function *f, enum dwc_pci_kept kept, uint32_t value)
{
	f->kept[kept - 1] = value;
}

void dwc_pci_make_bridge(struct dwc_pci_function *f)
{
	memset(f, 0, sizeof *f);
	f->kind = DWC_PCI_BRIDGE;
}

/* `type`: as virtio numbers devices (chapter 5); `class_code`: of PCI, 24 bits. It has an MSI-X vector for each queue and one more.
 * `base` and `irq`: what firmware has written. */
void dwc_pci_make_virtio(struct dwc_pci_function *f, uint8_t type, uint32_t class_code, uint8_t queues, uint32_t base, uint8_t irq)
{
	memset(f, 0, sizeof *f);
	f->kind = DWC_PCI_VIRTIO;
	f->queues = queues;
	set(f, DWC_PCI_ID, VIRTIO_ID + ((uint32_t)type << 16));
	set(f, DWC_PCI_COMMAND, CAPABILITY_LIST | DWC_PCI_MEMORY_SPACE);
	set(f, DWC_PCI_CLASS, class_code << 8 | VIRTIO_REVISION);
	set(f, DWC_PCI_BAR, base);
	set(f, DWC_PCI_INTERRUPT, PIN_A | irq);
	set(f, DWC_PCI_MSIX, MSIX_CAPABILITY | (uint32_t)queues << 16);
}

void dwc_pci_read_registers(const struct dwc_pci_function *f, unsigned at, unsigned size, uint8_t *data)
{
	for (unsigned i = 0; i < size; i++, at++) {
		const struct pci_register *r = &table(f)[at % DWC_PCI_BYTES / 4];
		uint32_t value = r->kept ? dwc_pci_kept(f, r->kept) : r->value;

		data[i] = at < DWC_PCI_BYTES ? (uint8_t)(value >> at % 4 * 8) : 0;
	}
}

void dwc_pci_write_registers(struct dwc_pci_function *f, unsigned at, unsigned size, const uint8_t *data)
{
	for (unsigned i = 0; i < size && at < DWC_PCI_BYTES; i++, at++) {
		const struct pci_register *r = &table(f)[at / 4];
		unsigned shift = at % 4 * 8;
		uint32_t mask = r->writable & 0xffu << shift;

		if (r->kept)
			set(f, r->kept, (dwc_pci_kept(f, r->kept) & ~mask) | ((uint32_t)data[i] << shift & mask));
	}
}

/* After any change: bring the interrupt status up to date. Returns the level of pin A. */
int dwc_pci_follow(struct dwc_pci_function *f)
{
	uint32_t command = dwc_pci_kept(f, DWC_PCI_COMMAND);
	int asserted = f->isr && !(dwc_pci_kept(f, DWC_PCI_MSIX) & DWC_PCI_MSIX_ENABLE);

	set(f, DWC_PCI_COMMAND, asserted ? command | INTERRUPT_STATUS : command & ~INTERRUPT_STATUS);
	return asserted && !(command & INTX_DISABLE);
}
