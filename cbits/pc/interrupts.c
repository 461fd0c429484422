/* Leads from an interrupt line to the vector with which an element starts: 8259, IO-APIC, local APIC. */
#include "pc/interrupts.h"

#include "pc/ioapic.h"
#include "pc/lapic.h"
#include "pc/pc.h"
#include "pc/pci.h"
#include "pc/pic.h"

#define ISA_LINES 16
#define FIRST_INTX 16
#define MSI_ADDRESS 0xfee00000ull
#define MSI_LOWEST_PRIORITY 1
#define MSI_NMI 4

/* A line of the PC (an ACPI GSI) goes up or down. ISA lines reach both controllers. */
void dwc_pc_set_gsi(struct dwc_pc *pc, unsigned gsi, int high)
{
	if (gsi < ISA_LINES)
		dwc_pic_set_irq(&pc->pic, gsi, high);
	if (gsi != DWC_TIMER_PIN)
		dwc_ioapic_set_line(&pc->ioapic, &pc->lapic, gsi ? gsi : DWC_TIMER_PIN, high);
}

/* Interrupt pins of PCI slots are levels; slots share lines. Pin A of slot s is GSI 16 + s mod 4, and an ISA interrupt as well. */
static void set_pin(struct dwc_pc *pc, unsigned slot)
{
	uint32_t same_gsi = 0x11111111u << slot % 4, same_irq = slot % 4 < 2 ? 0x33333333u : 0xccccccccu;

	dwc_pc_set_gsi(pc, FIRST_INTX + slot % 4, (pc->pci.pins & same_gsi) != 0);
	dwc_pc_set_gsi(pc, DWC_PCI_ISA_IRQ(slot), (pc->pci.pins & same_irq) != 0);
}

/* Set the lines of those slots whose pin has changed. */
void dwc_pc_follow_pins(struct dwc_pc *pc)
{
	uint32_t changed = pc->pci.pins ^ pc->pci.driven;

	pc->pci.driven = pc->pci.pins;
	for (unsigned slot = 0; changed; slot++, changed >>= 1)
		if (changed & 1)
			set_pin(pc, slot);
}

/* Change what a virtio device shows: its status, why it interrupts, and which queues wait for Python, a bit each. */
void dwc_pc_set_virtio(struct dwc_pc *pc, unsigned slot, uint8_t status, uint8_t isr, uint8_t waiting)
{
	struct dwc_pci_function *f = &pc->pci.function[slot];

	f->status = status;
	f->isr = isr;
	f->waiting = waiting;
	dwc_pci_update(&pc->pci, slot);
	dwc_pc_follow_pins(pc);
}

/* A message-signalled interrupt (SDM 3A 11.11): what a device writes, and where. */
void dwc_pc_send_msi(struct dwc_pc *pc, uint64_t address, uint32_t data)
{
	unsigned mode = data >> 8 & 7;

	if (address >> 20 != MSI_ADDRESS >> 20 || !dwc_lapic_is_meant(&pc->lapic, address >> 12 & 0xff, address >> 2 & 1))
		return;
	if (mode == MSI_NMI)
		pc->lapic.nmi = 1;
	else if (mode <= MSI_LOWEST_PRIORITY)
		dwc_lapic_accept(&pc->lapic, data & 0xff, 0);
}

/* Whether an interrupt of the 8259 is pending and can reach the CPU. */
static int external(const struct dwc_pc *pc)
{
	return dwc_pic_pending(&pc->pic) && (dwc_lapic_wire(&pc->lapic) || dwc_ioapic_wire(&pc->ioapic));
}

int dwc_pc_interrupt_pending(const struct dwc_pc *pc)
{
	return external(pc) || dwc_lapic_pending(&pc->lapic) >= 0;
}

/* The vector for the CPU. Call it only if dwc_pc_interrupt_pending(). */
int dwc_pc_interrupt_acknowledge(struct dwc_pc *pc)
{
	return external(pc) ? dwc_pic_acknowledge(&pc->pic) : dwc_lapic_acknowledge(&pc->lapic);
}
