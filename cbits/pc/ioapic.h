/* IO-APIC (Intel 82093AA). */
#ifndef DWC_PC_IOAPIC_H
#define DWC_PC_IOAPIC_H

#include <stdint.h>

struct dwc_lapic;

#define DWC_IOAPIC_PINS 24
#define DWC_IOAPIC_MASKED (1ull << 16)
#define DWC_TIMER_PIN 2 /* ISA interrupt 0 is pin 2 (an override in the MADT) */

struct dwc_ioapic {
	uint64_t entry[DWC_IOAPIC_PINS];
	uint32_t id, select, lines, requests;
};

void dwc_ioapic_init(struct dwc_ioapic *io);
void dwc_ioapic_set_line(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned pin, int high);
void dwc_ioapic_end(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned vector);
int dwc_ioapic_wire(const struct dwc_ioapic *io);
uint32_t dwc_ioapic_read(const struct dwc_ioapic *io, unsigned offset);
void dwc_ioapic_write(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned offset, uint32_t value);

#endif
