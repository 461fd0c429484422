/* The IO-APIC: 24 pins and a redirection entry for each (Intel 82093AA, 290566-001). */
#include "pc/ioapic.h"

#include <errno.h>
#include <string.h>

#include "pc/lapic.h"

#define VERSION_VALUE 0x00170011
#define ENTRY_LEVEL (1ull << 15)
#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_LOGICAL (1ull << 11)
#define ENTRY_READ_ONLY (ENTRY_REMOTE_IRR | 1ull << 12)
#define ENTRY_VALID 0xff0000000001ffffull
#define MODE(entry) (((entry) >> 8) & 7)
#define FIXED 0
#define LOWEST_PRIORITY 1
#define EXTINT 7
#define SELECT 0x00
#define WINDOW 0x10
#define FIRST_ENTRY 0x10

void dwc_ioapic_init(struct dwc_ioapic *io)
{
	memset(io, 0, sizeof *io);
	for (int pin = 0; pin < DWC_IOAPIC_PINS; pin++)
		io->entry[pin] = DWC_IOAPIC_MASKED;
}

/* Send the interrupt pending at a pin, unless it is masked or in service. */
static void service(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned pin)
{
	uint64_t *entry = &io->entry[pin];
	int level = (*entry & ENTRY_LEVEL) != 0;

	if (!(io->requests & 1u << pin) || *entry & DWC_IOAPIC_MASKED || (level && *entry & ENTRY_REMOTE_IRR))
		return;
	if (MODE(*entry) == EXTINT) /* the 8259 is asked for the vector (interrupts.c) */
		return;
	if (!level)
		io->requests &= ~(1u << pin);
	if (MODE(*entry) > LOWEST_PRIORITY || !dwc_lapic_is_meant(lapic, *entry >> 56, (*entry & ENTRY_LOGICAL) != 0))
		return;
	if (level)
		*entry |= ENTRY_REMOTE_IRR;
	dwc_lapic_accept(lapic, *entry & 0xff, level);
}

/* A line changes. An edge at a masked pin is kept until the pin is unmasked; a level lasts as long as the line is high. */
void dwc_ioapic_set_line(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned pin, int high)
{
	uint32_t bit = 1u << pin;

	if (io->entry[pin] & ENTRY_LEVEL) {
		io->requests = high ? io->requests | bit : io->requests & ~bit;
	} else if (high && !(io->lines & bit)) {
		io->requests |= bit;
	}
	io->lines = high ? io->lines | bit : io->lines & ~bit;
	service(io, lapic, pin);
}

/* End of a level-triggered interrupt: a line that is still high interrupts again. */
void dwc_ioapic_end(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned vector)
{
	for (unsigned pin = 0; pin < DWC_IOAPIC_PINS; pin++)
		if ((io->entry[pin] & 0xff) == vector && io->entry[pin] & ENTRY_REMOTE_IRR) {
			io->entry[pin] &= ~ENTRY_REMOTE_IRR;
			service(io, lapic, pin);
		}
}

/* Whether the 8259 reaches the CPU through pin 0. */
int dwc_ioapic_wire(const struct dwc_ioapic *io)
{
	return !(io->entry[0] & DWC_IOAPIC_MASKED) && MODE(io->entry[0]) == EXTINT;
}

uint32_t dwc_ioapic_read(const struct dwc_ioapic *io, unsigned offset)
{
	unsigned at = io->select - FIRST_ENTRY;

	if (offset == SELECT)
		return io->select;
	if (offset != WINDOW)
		return 0;
	if (io->select == 0)
		return io->id;
	if (io->select == 1)
		return VERSION_VALUE;
	if (io->select == 2)
		return io->id & 0x0f000000; /* arbitration id */
	if (io->select < FIRST_ENTRY || at / 2 >= DWC_IOAPIC_PINS)
		return 0;
	return (uint32_t)(io->entry[at / 2] >> (at % 2 ? 32 : 0));
}

static void write_entry(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned at, uint32_t value)
{
	unsigned pin = at / 2;
	uint64_t old = io->entry[pin], new;

	new = at % 2 ? (old & 0xffffffff) | (uint64_t)value << 32 : (old & ~0xffffffffull) | value;
	new = (new & ENTRY_VALID & ~ENTRY_READ_ONLY) | (old & ENTRY_READ_ONLY);
	if (!(new & ENTRY_LEVEL))
		new &= ~ENTRY_REMOTE_IRR;
	if ((new ^ old) & ENTRY_LEVEL) /* the trigger mode has changed: drop the old request */
		io->requests = new & ENTRY_LEVEL && io->lines & 1u << pin ? io->requests | 1u << pin :
									    io->requests & ~(1u << pin);
	io->entry[pin] = new;
	service(io, lapic, pin);
}

void dwc_ioapic_write(struct dwc_ioapic *io, struct dwc_lapic *lapic, unsigned offset, uint32_t value)
{
	if (offset == SELECT)
		io->select = value & 0xff;
	else if (offset == WINDOW && io->select == 0)
		io->id = value & 0x0f000000;
	else if (offset == WINDOW && io->select >= FIRST_ENTRY && (io->select - FIRST_ENTRY) / 2 < DWC_IOAPIC_PINS)
		write_entry(io, lapic, io->select - FIRST_ENTRY, value);
}
