/* Leads from an interrupt line to the vector with which an element starts: 8259, IO-APIC, local APIC. */
#include "pc/interrupts.h"

#include "pc/ioapic.h"
#include "pc/lapic.h"
#include "pc/pc.h"
#include "pc/pic.h"

#define ISA_LINES 16
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
