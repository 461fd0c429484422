/* The devices that answer without Python, because Linux talks to them all the time: interrupt
 * controllers, timer, first serial port (docs/decisions/0001-devices-in-c.md). */
#include "core.h"

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

/* Serve a port exit; returns 1 if a device here did. These devices are byte wide. */
int dwc_platform_io(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data)
{
	int served = 1;

	if (exit->reason != KVM_EXIT_IO || exit->size != 1)
		return 0;
	for (uint32_t i = 0; served && i < exit->count; i++)
		served = exit->is_write ? serve_write(e, exit->port, exit->data[i]) : serve_read(e, exit->port, &data[i]);
	return served;
}

/* Bring the interrupt lines up to the guest clock. */
void dwc_platform_tick(struct dwc_engine *e)
{
	if (dwc_pit_edges(&e->pit, e->guest_ns)) {
		dwc_pic_set_irq(&e->pic, 0, 0); /* the falling edge before it, or it is no edge */
		dwc_pic_set_irq(&e->pic, 0, 1);
	}
	if (!dwc_pit_output(&e->pit, e->guest_ns))
		dwc_pic_set_irq(&e->pic, 0, 0);
	dwc_pic_set_irq(&e->pic, 4, dwc_uart_irq(&e->uart));
}

uint64_t dwc_platform_deadline(struct dwc_engine *e)
{
	return dwc_pit_deadline(&e->pit, e->guest_ns);
}
