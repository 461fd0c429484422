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

/* Local APIC (SDM 3A chapter 11). */
#define DWC_LAPIC_LVTS 6
#define DWC_LVT_TIMER 0
#define DWC_LVT_LINT0 3

struct dwc_lapic {
	uint32_t id, tpr, ldr, dfr, svr, esr, errors, icr_low, icr_high, initial_count, divide;
	uint32_t lvt[DWC_LAPIC_LVTS]; /* timer, thermal, performance, LINT0, LINT1, error */
	uint32_t irr[8], isr[8], tmr[8];
	uint64_t start_ns, expirations_taken; /* of the timer */
	int nmi;                              /* one is on its way to the CPU */
};

void dwc_lapic_init(struct dwc_lapic *a);
void dwc_lapic_accept(struct dwc_lapic *a, unsigned vector, int level);
int dwc_lapic_pending(const struct dwc_lapic *a);
int dwc_lapic_acknowledge(struct dwc_lapic *a);
int dwc_lapic_wire(const struct dwc_lapic *a);
int dwc_lapic_is_meant(const struct dwc_lapic *a, unsigned destination, int logical);
void dwc_lapic_set_cr8(struct dwc_lapic *a, unsigned cr8);
void dwc_lapic_tick(struct dwc_lapic *a, uint64_t now_ns);
uint64_t dwc_lapic_deadline(const struct dwc_lapic *a);
uint32_t dwc_lapic_read(struct dwc_lapic *a, unsigned offset, uint64_t now_ns);
int dwc_lapic_write(struct dwc_lapic *a, unsigned offset, uint32_t value, uint64_t now_ns);

/* IO-APIC (Intel 82093AA). */
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

/* 8254 (Intel 231164) and the PC's port 0x61. Times are in ticks of its clock. */
struct dwc_pit_channel {
	uint32_t reload, next; /* counts, 1 to 65536; next: written, and in use from next_at or the next trigger on; 0: none */
	uint64_t start, held, next_at;
	uint64_t rises; /* edges before `start` */
	uint8_t state, mode, bcd, access, write_high, read_high, low_byte, latched, status_latched, status, gate;
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

/* MC146818: the registers are memory[0] to memory[13] and memory[0x32]. */
struct dwc_rtc {
	uint8_t index, memory[128];
	uint64_t chain_ns;    /* guest time at which the divider chain began: a second ends with each whole one from there on */
	uint64_t seen_ns;     /* up to here the registers are right */
	uint64_t deadline_ns; /* of the next interrupt */
};

void dwc_rtc_init(struct dwc_rtc *r, int64_t time, uint32_t ns);
void dwc_rtc_tick(struct dwc_rtc *r, uint64_t now_ns);
uint64_t dwc_rtc_deadline(const struct dwc_rtc *r);
int dwc_rtc_irq(const struct dwc_rtc *r);
uint8_t dwc_rtc_read(struct dwc_rtc *r, uint16_t port, uint64_t now_ns);
void dwc_rtc_write(struct dwc_rtc *r, uint16_t port, uint8_t value, uint64_t now_ns);

/* What answers for functions that are not there, in PCI's configuration space (PCI Local Bus 3.0, 3.2.2.3). */
struct dwc_pci {
	uint32_t address;    /* register at port 0xCF8 */
	uint8_t present[32]; /* functions of each device of bus 0, a bit each */
};

void dwc_pci_add(struct dwc_pci *p, unsigned device, unsigned function);
int dwc_pci_present(const struct dwc_pci *p, uint32_t address);
int dwc_pci_read(const struct dwc_pci *p, unsigned offset, unsigned size, uint8_t *data);
int dwc_pci_write(struct dwc_pci *p, unsigned offset, unsigned size, const uint8_t *data);

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
