/* Devices that act between elements, on verified data: plain state machines. Time is handed in as
 * nanoseconds of the guest clock. */
#ifndef DWC_DEVICES_H
#define DWC_DEVICES_H

#include <stddef.h>
#include <stdint.h>

/* 8259A: one chip of the pair. Register names are the data sheet's (Intel 231468). */
struct dwc_pic_chip {
	uint8_t irr, imr, isr, elcr, lines;
	uint8_t vector_base, init_step, read_isr, poll, auto_eoi, rotate_auto, special_mask, single, needs_icw4;
	uint8_t lowest; /* the IRQ of lowest priority, 7 after reset */
};

struct dwc_pic {
	struct dwc_pic_chip chip[2]; /* master, slave on IRQ 2 */
};

void dwc_pic_init(struct dwc_pic *pic);
void dwc_pic_set_irq(struct dwc_pic *pic, unsigned irq, int level);
int dwc_pic_pending(const struct dwc_pic *pic);
int dwc_pic_acknowledge(struct dwc_pic *pic);
uint8_t dwc_pic_read(struct dwc_pic *pic, uint16_t port);
void dwc_pic_write(struct dwc_pic *pic, uint16_t port, uint8_t value);

/* 8254 (Intel 231164) and the PC's port 0x61. Counting is binary: BCD is treated so, nobody uses it. */
struct dwc_pit_channel {
	uint32_t reload; /* 1 to 65536 */
	uint64_t start_ns;
	uint8_t mode, access, write_high, read_high, low_byte, latched, status_latched, status, gate, counting, null_count;
	uint16_t latch;
};

struct dwc_pit {
	struct dwc_pit_channel channel[3];
	uint64_t edges_taken;
	uint8_t speaker, refresh;
};

void dwc_pit_init(struct dwc_pit *pit);
uint8_t dwc_pit_read(struct dwc_pit *pit, uint16_t port, uint64_t now_ns);
void dwc_pit_write(struct dwc_pit *pit, uint16_t port, uint8_t value, uint64_t now_ns);
uint64_t dwc_pit_deadline(const struct dwc_pit *pit, uint64_t now_ns);
int dwc_pit_output(const struct dwc_pit *pit, uint64_t now_ns);
unsigned dwc_pit_edges(struct dwc_pit *pit, uint64_t now_ns);

/* 16550A (National PC16550D). Transmission takes no time; the host drains tx. */
#define DWC_UART_FIFO 16
#define DWC_UART_TX 8192

struct dwc_uart {
	uint8_t ier, lcr, mcr, lsr, scr, dll, dlm, fcr, thre_pending;
	uint8_t rx[DWC_UART_FIFO];
	unsigned rx_head, rx_count;
	uint8_t tx[DWC_UART_TX];
	unsigned tx_count;
};

void dwc_uart_init(struct dwc_uart *uart);
uint8_t dwc_uart_read(struct dwc_uart *uart, unsigned offset);
void dwc_uart_write(struct dwc_uart *uart, unsigned offset, uint8_t value);
int dwc_uart_irq(const struct dwc_uart *uart);
int dwc_uart_wants_drain(const struct dwc_uart *uart);
size_t dwc_uart_drain(struct dwc_uart *uart, uint8_t *out, size_t room);
size_t dwc_uart_receive(struct dwc_uart *uart, const uint8_t *data, size_t length);

#endif
