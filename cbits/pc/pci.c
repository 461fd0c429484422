/* PCI bus 0: which function an access reaches. A boot loader that scans the configuration space makes more than a hundred thousand. */
#include "pc/pci.h"

#include <string.h>

#include "pc/access.h"
#include "pc/pcifunction.h"
#include "pc/virtio.h"

#define ENABLE 0x80000000u
#define DATA 4           /* offset of the data register from port 0xCF8 */
#define ECAM_BYTES 4096u /* a function (PCI Express 5.0, 7.2.2) */

/* Registers of a function, or a part of its memory. */
struct target {
	unsigned slot, at;
	int in_memory;
};

/* The host bridge is always there. */
void dwc_pci_init(struct dwc_pci *p)
{
	memset(p, 0, sizeof *p);
	dwc_pci_make_bridge(&p->function[0]);
}

/* Add a virtio device as firmware leaves it: its memory is at `base` and can be accessed, the register of the interrupt line names the
 * ISA interrupt. Returns 0 if the slot is taken. */
int dwc_pci_add_virtio(struct dwc_pci *p, unsigned slot, uint8_t type, uint32_t class_code, uint8_t queues, uint32_t base)
{
	if (slot >= DWC_PCI_SLOTS || p->function[slot].kind)
		return 0;
	dwc_pci_make_virtio(&p->function[slot], type, class_code, queues, base, DWC_PCI_ISA_IRQ(slot));
	return 1;
}

/* After a change of a function: note whether it interrupts, and whether Python has to process its queues. */
void dwc_pci_update(struct dwc_pci *p, unsigned slot)
{
	uint32_t bit = 1u << slot;
	struct dwc_pci_function *f = &p->function[slot];

	p->pins = dwc_pci_follow(f) ? p->pins | bit : p->pins & ~bit;
	p->waiting = f->waiting ? p->waiting | bit : p->waiting & ~bit;
}

/* Find a function by bus, device and function number as both mechanisms encode them: 8, 5 and 3 bits. Only bus 0 exists, and only
 * function 0 of a device. virtio's pci_cfg_data leads on to the device's memory. */
static int find(const struct dwc_pci *p, uint32_t address, unsigned at, unsigned size, struct target *t)
{
	int64_t window;

	if (address >= DWC_PCI_SLOTS * 8 || address % 8 || !p->function[address / 8].kind)
		return 0;
	window = dwc_virtio_window(&p->function[address / 8], at, size);
	t->slot = address / 8;
	t->in_memory = window >= 0;
	t->at = t->in_memory ? (unsigned)window : at;
	return 1;
}

static int serve_target(struct dwc_pci *p, const struct target *t, const struct dwc_access *a)
{
	struct dwc_pci_function *f = &p->function[t->slot];

	if (t->in_memory) {
		if (dwc_virtio_serve(f, t->at, a))
			return 1;
		if (a->committed)
			*a->left = (struct dwc_place){ t->slot, t->at };
		return 0;
	}
	if (!a->written) {
		dwc_pci_read_registers(f, t->at, a->size, a->read);
		return 1;
	}
	if (!a->committed && dwc_virtio_sends_messages(f, t->at, a->size))
		return 0;
	dwc_pci_write_registers(f, t->at, a->size, a->written);
	return 1;
}

static int serve(struct dwc_pci *p, const struct target *t, const struct dwc_access *a)
{
	int served = serve_target(p, t, a);

	dwc_pci_update(p, t->slot);
	return served;
}

/* Nobody answers: a read gives ones, what is written is lost. */
static int serve_absent(const struct dwc_access *a)
{
	if (!a->written)
		memset(a->read, 0xff, a->size);
	return 1;
}

/* The address register is 32 bits wide, written as a whole, and its two lowest bits are always 0. */
static int serve_address(struct dwc_pci *p, const struct dwc_access *a)
{
	if (a->size != sizeof p->address || a->at)
		return serve_absent(a);
	if (a->written)
		p->address = (uint32_t)dwc_merged(a, 0, 0) & ~3u;
	else
		dwc_answer(a, 0, p->address);
	return 1;
}

/* Ports 0xCF8 to 0xCFF; returns 0 if the access is for Python, or has to wait until it is committed. */
int dwc_pci_ports(struct dwc_pci *p, const struct dwc_access *a)
{
	struct target t;

	if (a->at < DATA)
		return serve_address(p, a);
	if (!(p->address & ENABLE) || !find(p, p->address >> 8 & 0xffff, (p->address & 0xfc) + a->at - DATA, a->size, &t))
		return serve_absent(a);
	return serve(p, &t, a);
}

/* Configuration space in memory; returns as dwc_pci_ports() does. */
int dwc_pci_ecam(struct dwc_pci *p, const struct dwc_access *a)
{
	struct target t;

	if (!find(p, a->at / ECAM_BYTES, a->at % ECAM_BYTES, a->size, &t))
		return serve_absent(a);
	return serve(p, &t, a);
}

static int decodes(const struct dwc_pci_function *f, const struct dwc_access *a)
{
	uint64_t base = dwc_pci_kept(f, DWC_PCI_BAR);

	return f->kind == DWC_PCI_VIRTIO && dwc_pci_kept(f, DWC_PCI_COMMAND) & DWC_PCI_MEMORY_SPACE && base && a->address >= base &&
	       a->address + a->size <= base + DWC_VIRTIO_BYTES;
}

/* Memory of the devices, by their base address registers; returns as dwc_pci_ports() does. Where two overlap the first one answers. */
int dwc_pci_memory(struct dwc_pci *p, const struct dwc_access *a)
{
	for (unsigned slot = 0; slot < DWC_PCI_SLOTS; slot++)
		if (decodes(&p->function[slot], a)) {
			struct target t = { slot, (unsigned)(a->address - dwc_pci_kept(&p->function[slot], DWC_PCI_BAR)), 1 };

			return serve(p, &t, a);
		}
	return 0;
}
