/* 16550A UART (National Semiconductor PC16550D). A byte written is sent at once. */
#include "pc/uart.h"

#include <stddef.h>
#include <string.h>

enum { IER_RX = 1, IER_THRE = 2, IER_LINE = 4, LCR_DLAB = 0x80, LSR_READY = 1, LSR_OVERRUN = 2, LSR_EMPTY = 0x60,
       MCR_OUT2 = 8, MCR_LOOP = 0x10, FCR_ENABLE = 1, FCR_CLEAR_RX = 2 };
enum { IIR_NONE = 1, IIR_THRE = 2, IIR_RX = 4, IIR_LINE = 6, IIR_FIFO = 0xc0 };

void dwc_uart_init(struct dwc_uart *u)
{
	memset(u, 0, sizeof *u);
	u->present = 1;
	u->lsr = LSR_EMPTY;
	u->dll = 1; /* 115200 baud */
	u->lcr = 3; /* 8N1 */
}

static uint8_t interrupt_id(const struct dwc_uart *u)
{
	if ((u->ier & IER_LINE) && (u->lsr & LSR_OVERRUN))
		return IIR_LINE;
	if ((u->ier & IER_RX) && u->rx_count)
		return IIR_RX; /* below the trigger level the time-out would come at once, which is the same */
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	return IIR_NONE;
}

int dwc_uart_irq(const struct dwc_uart *u)
{
	return (u->mcr & MCR_OUT2) && !(u->mcr & MCR_LOOP) && interrupt_id(u) != IIR_NONE;
}

size_t dwc_uart_receive(struct dwc_uart *u, const uint8_t *data, size_t length)
{
	size_t limit = u->fcr & FCR_ENABLE ? DWC_UART_FIFO : 1, taken = 0;

	while (taken < length && u->rx_count < limit) {
		u->rx[(u->rx_head + u->rx_count) % DWC_UART_FIFO] = data[taken++];
		u->rx_count++;
		u->lsr |= LSR_READY;
	}
	return taken;
}

static uint8_t take_received(struct dwc_uart *u)
{
	uint8_t value;

	if (!u->rx_count)
		return 0;
	value = u->rx[u->rx_head % DWC_UART_FIFO]; /* a fault may have changed it */
	u->rx_head = (uint8_t)((u->rx_head + 1) % DWC_UART_FIFO);
	if (!--u->rx_count)
		u->lsr &= (uint8_t)~LSR_READY;
	return value;
}

/* In loopback the modem outputs come back as inputs (data sheet 8.6): DTR>DSR RTS>CTS OUT1>RI OUT2>DCD. */
static uint8_t modem_status(const struct dwc_uart *u)
{
	if (!(u->mcr & MCR_LOOP))
		return 0xb0; /* DCD, DSR, CTS: a terminal is connected */
	return (uint8_t)((u->mcr & 1) << 5 | (u->mcr & 2) << 3 | (u->mcr & 4) << 4 | (u->mcr & 8) << 4);
}

uint8_t dwc_uart_read(struct dwc_uart *u, unsigned offset)
{
	uint8_t value;

	switch (offset) {
	case 0:
		return u->lcr & LCR_DLAB ? u->dll : take_received(u);
	case 1:
		return u->lcr & LCR_DLAB ? u->dlm : u->ier;
	case 2:
		value = interrupt_id(u);
		if (value == IIR_THRE)
			u->thre_pending = 0; /* reading IIR clears this source */
		return (uint8_t)(value | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0));
	case 3:
		return u->lcr;
	case 4:
		return u->mcr;
	case 5:
		value = u->lsr;
		u->lsr &= (uint8_t)~LSR_OVERRUN;
		return value;
	case 6:
		return modem_status(u);
	default:
		return u->scr;
	}
}

/* Returns 1 if the byte leaves the chip. */
static int transmit(struct dwc_uart *u, uint8_t value)
{
	u->thre_pending = 1;
	if (!(u->mcr & MCR_LOOP))
		return 1;
	if (!dwc_uart_receive(u, &value, 1))
		u->lsr |= LSR_OVERRUN;
	return 0;
}

/* Returns 1 if this has sent `value`. */
int dwc_uart_write(struct dwc_uart *u, unsigned offset, uint8_t value)
{
	switch (offset) {
	case 0:
		if (!(u->lcr & LCR_DLAB))
			return transmit(u, value);
		u->dll = value;
		break;
	case 1:
		if (u->lcr & LCR_DLAB) {
			u->dlm = value;
			break;
		}
		if ((value & IER_THRE) && !(u->ier & IER_THRE))
			u->thre_pending = 1; /* enabling it while empty raises it: Linux probes for this */
		u->ier = value & 0x0f;
		break;
	case 2:
		if ((value ^ u->fcr) & FCR_ENABLE)
			value |= FCR_CLEAR_RX;
		if (value & FCR_CLEAR_RX) {
			u->rx_count = 0;
			u->lsr &= (uint8_t)~LSR_READY;
		}
		u->fcr = value & 0xc9;
		break;
	case 3:
		u->lcr = value;
		break;
	case 4:
		u->mcr = value & 0x1f;
		break;
	case 7:
		u->scr = value;
		break;
	default: /* LSR and MSR are read only */
		break;
	}
	return 0;
}
