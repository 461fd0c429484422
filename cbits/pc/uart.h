/* 16550A (National PC16550D). Transmission takes no time. */
#ifndef DWC_PC_UART_H
#define DWC_PC_UART_H

#include <stddef.h>
#include <stdint.h>

#define DWC_UART_FIFO 16

struct dwc_uart {
	uint8_t present; /* else nothing answers at its ports */
	uint8_t ier, lcr, mcr, lsr, scr, dll, dlm, fcr, thre_pending;
	uint8_t rx_head, rx_count;
	uint8_t rx[DWC_UART_FIFO];
};

void dwc_uart_init(struct dwc_uart *uart);
uint8_t dwc_uart_read(struct dwc_uart *uart, unsigned offset);
int dwc_uart_write(struct dwc_uart *uart, unsigned offset, uint8_t value);
int dwc_uart_irq(const struct dwc_uart *uart);
size_t dwc_uart_receive(struct dwc_uart *uart, const uint8_t *data, size_t length);

#endif
