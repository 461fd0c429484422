/* The devices that answer without Python, because Linux talks to them all the time: interrupt
 * controllers, timer, first serial port (docs/decisions/0001-devices-in-c.md). */
#include "core.h"

#include <string.h>

#define LAPIC 0xfee00000
#define IOAPIC 0xfec00000
#define PM_TIMER 0x608
#define PM_TIMER_HZ 3579545 /* ACPI 4.8.3.3 */
#define NS_PER_S 1000000000

static int serve_read(struct dwc_engine *e, uint16_t port, uint8_t *value)
{
	switch (port) {
	case 0x20: case 0x21: case 0xa0: case 0xa1: case 0x4d0: case 0x4d1:
		*value = dwc_pic_read(&e->pic, port);
		return 1;
	case 0x40: case 0x41: case 0x42: case 0x43: case 0x61:
		*value = dwc_pit_read(&e->pit, port, e->guest_ns);
		return 1;
	case 0x80: /* POST code: Linux delays I/O by writing here */
		*value = 0xff;
		return 1;
	}
	if (port >= e->uart_base && port < e->uart_base + 8) {
		*value = dwc_uart_read(&e->uart, port - e->uart_base);
		return 1;
	}
	return 0;
}

static int serve_write(struct dwc_engine *e, uint16_t port, uint8_t value)
{
	switch (port) {
	case 0x20: case 0x21: case 0xa0: case 0xa1: case 0x4d0: case 0x4d1:
		dwc_pic_write(&e->pic, port, value);
		return 1;
	case 0x40: case 0x41: case 0x42: case 0x43: case 0x61:
		dwc_pit_write(&e->pit, port, value, e->guest_ns);
		return 1;
	case 0x80:
		return 1;
	}
	if (port >= e->uart_base && port < e->uart_base + 8) {
		dwc_uart_write(&e->uart, port - e->uart_base, value);
		return 1;
	}
	return 0;
}

/* All its bytes at once; a part of it in any other way. */
static int read_pm_timer(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data)
{
	uint32_t value = (uint32_t)((unsigned __int128)e->guest_ns * PM_TIMER_HZ / NS_PER_S);
	unsigned offset = exit->port - PM_TIMER;

	if (exit->is_write || exit->port < PM_TIMER || offset + exit->size > sizeof value || exit->count != 1)
		return 0;
	memcpy(data, (uint8_t *)&value + offset, exit->size);
	return 1;
}

/* Serve a port exit; returns 1 if a device here did. All but one of these devices are byte wide. */
int dwc_platform_io(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data)
{
	int served = 1;

	if (exit->reason == KVM_EXIT_IO && read_pm_timer(e, exit, data))
		return 1;
	if (exit->reason != KVM_EXIT_IO || exit->size != 1)
		return 0;
	for (uint32_t i = 0; served && i < exit->count; i++)
		served = exit->is_write ? serve_write(e, exit->port, exit->data[i]) : serve_read(e, exit->port, &data[i]);
	return served;
}

static void write_lapic(struct dwc_engine *e, unsigned offset, uint32_t value)
{
	int ended = dwc_lapic_write(&e->lapic, offset, value, e->guest_ns);

	if (ended >= 0)
		dwc_ioapic_end(&e->ioapic, &e->lapic, (unsigned)ended);
	e->replicas[0].run->cr8 = e->lapic.tpr >> 4; /* the same register (SDM 3A 11.8.6) */
}

/* Serve an access to the local APIC or the IO-APIC; returns 1 if it was one. Their registers are 32 bits wide, and a write of any
 * other width has no effect. */
int dwc_platform_mmio(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data)
{
	uint64_t page = exit->gpa & ~(uint64_t)(DWC_PAGE - 1);
	unsigned offset = exit->gpa & (DWC_PAGE - 1);
	uint32_t value;

	if (page != LAPIC && page != IOAPIC)
		return 0;
	if (exit->is_write) {
		memcpy(&value, exit->data, sizeof value);
		if (exit->size == sizeof value && page == LAPIC)
			write_lapic(e, offset, value);
		else if (exit->size == sizeof value)
			dwc_ioapic_write(&e->ioapic, &e->lapic, offset, value);
		return 1;
	}
	value = page == LAPIC ? dwc_lapic_read(&e->lapic, offset & ~3u, e->guest_ns) : dwc_ioapic_read(&e->ioapic, offset & ~3u);
	memset(data, 0, exit->size);
	value >>= 8 * (offset & 3);
	memcpy(data, &value, exit->size < sizeof value ? exit->size : sizeof value);
	return 1;
}

/* Bring the interrupt lines up to the guest clock. */
void dwc_platform_tick(struct dwc_engine *e)
{
	if (dwc_pit_edges(&e->pit, e->guest_ns)) {
		dwc_set_gsi(e, 0, 0); /* the falling edge before it, or it is no edge */
		dwc_set_gsi(e, 0, 1);
	}
	if (!dwc_pit_output(&e->pit, e->guest_ns))
		dwc_set_gsi(e, 0, 0);
	dwc_set_gsi(e, 4, dwc_uart_irq(&e->uart));
	dwc_lapic_tick(&e->lapic, e->guest_ns);
}

uint64_t dwc_platform_deadline(struct dwc_engine *e)
{
	uint64_t pit = dwc_pit_deadline(&e->pit, e->guest_ns), lapic = dwc_lapic_deadline(&e->lapic);

	return pit < lapic ? pit : lapic;
}
