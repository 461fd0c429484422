/* 16550A (National PC16550D). Transmission takes no time; the host drains tx. */
#ifndef DWC_PC_UART_H
#define DWC_PC_UART_H

#include <stddef.h>
#include <stdint.h>

#define DWC_UART_FIFO 16
#define DWC_UART_TX 8192

struct dwc_uart {
	uint8_t ier, lcr, mcr, lsr, scr, dll, dlm, fcr, thre_pending;
	uint8_t rx[DWC_UART_FIFO];
	unsigned rx_head, rx_count;
	uint8_t line_ended;  /* there is a newline in what was sent */
	unsigned tx_count;
	uint8_t tx[DWC_UART_TX]; /* the last member: only tx_count bytes of it are copied (dwc_pc_copy) */
};

void dwc_uart_init(struct dwc_uart *uart);
uint8_t dwc_uart_read(struct dwc_uart *uart, unsigned offset);
void dwc_uart_write(struct dwc_uart *uart, unsigned offset, uint8_t value);
int dwc_uart_irq(const struct dwc_uart *uart);
int dwc_uart_is_full(const struct dwc_uart *uart);
int dwc_uart_wants_drain(const struct dwc_uart *uart);
size_t dwc_uart_drain(struct dwc_uart *uart, uint8_t *out, size_t room);
size_t dwc_uart_receive(struct dwc_uart *uart, const uint8_t *data, size_t length);

#endif
