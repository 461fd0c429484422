/* The devices that answer without Python, because guests access them all the time or because their interrupts follow the guest
 * clock: interrupt controllers, timer, clock, first serial port (docs/decisions/0001-devices-in-c.md). */
#include "pc/pc.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "host.h"
#include "pc/interrupts.h"
#include "pc/ioapic.h"
#include "pc/lapic.h"
#include "pc/pci.h"
#include "pc/pic.h"
#include "pc/pit.h"
#include "pc/rtc.h"
#include "pc/uart.h"
#include "vcpu/exit.h"

#define LAPIC 0xfee00000
#define IOAPIC 0xfec00000
#define ECAM 0xb0000000 /* this and the next ones as in layout.py */
#define ECAM_BYTES 0x100000
#define PCI_PORTS 0xcf8
#define COM1 0x3f8
#define PM_TIMER 0x608
#define PM_TIMER_HZ 3579545 /* ACPI 4.8.3.3 */
#define NS_PER_S 1000000000
#define RTC_IRQ 8
#define CASCADE 2 /* the second 8259 is behind this input of the first */

enum device { NOBODY, PIC, PIT, RTC, POST_CODE, ACPI_TIMER, UART };

/* Which device a port belongs to. All these devices are a byte wide. */
static enum device device_at(unsigned port)
{
	switch (port) {
	case 0x20: case 0x21: case 0xa0: case 0xa1: case 0x4d0: case 0x4d1:
		return PIC;
	case 0x40: case 0x41: case 0x42: case 0x43: case 0x61:
		return PIT;
	case 0x70: case 0x71:
		return RTC;
	case 0x80: /* Linux delays I/O by writing here */
		return POST_CODE;
	case PM_TIMER: case PM_TIMER + 1: case PM_TIMER + 2: case PM_TIMER + 3:
		return ACPI_TIMER;
	}
	return port >= COM1 && port < COM1 + 8 ? UART : NOBODY;
}

/* The size of its state, which leaves out room for bytes that were not sent. */
size_t dwc_pc_bytes(const struct dwc_pc *pc)
{
	return DWC_PC_BYTES + pc->uart.tx_count;
}

/* Copy its state: much less than an assignment does. */
void dwc_pc_copy(struct dwc_pc *to, const struct dwc_pc *from)
{
	memcpy(to, from, dwc_pc_bytes(from));
}

/* Whether two PCs that were copied from one have the same state. Padding is part of the copy, and nothing else writes it. */
int dwc_pc_is_same(const struct dwc_pc *a, const struct dwc_pc *b)
{
	return dwc_pc_bytes(a) == dwc_pc_bytes(b) && !memcmp(a, b, dwc_pc_bytes(a));
}

/* Put the devices into the state in which firmware leaves them. `time`: seconds since 1970, UTC, plus nanoseconds, at guest time 0. */
void dwc_pc_init(struct dwc_pc *pc, int64_t time, uint32_t ns)
{
	memset(pc, 0, sizeof *pc);
	dwc_pic_init(&pc->pic);
	dwc_ioapic_init(&pc->ioapic);
	dwc_lapic_init(&pc->lapic);
	dwc_pit_init(&pc->pit);
	dwc_rtc_init(&pc->rtc, time, ns);
	dwc_uart_init(&pc->uart);
}

/* Read a byte; -1 if no device here has that port. */
int dwc_pc_read_port(struct dwc_pc *pc, uint16_t port, uint64_t now_ns)
{
	switch (device_at(port)) {
	case PIC:
		return dwc_pic_read(&pc->pic, port);
	case PIT:
		return dwc_pit_read(&pc->pit, port, now_ns);
	case RTC:
		return dwc_rtc_read(&pc->rtc, port, now_ns);
	case POST_CODE:
		return 0xff;
	case ACPI_TIMER:
		return (uint8_t)((unsigned __int128)now_ns * PM_TIMER_HZ / NS_PER_S >> 8 * (port - PM_TIMER));
	case UART:
		return dwc_uart_read(&pc->uart, port - COM1);
	case NOBODY:
		break;
	}
	return -1;
}

/* Write a byte; returns 1 if a device here has that port. */
int dwc_pc_write_port(struct dwc_pc *pc, uint16_t port, uint8_t value, uint64_t now_ns)
{
	switch (device_at(port)) {
	case PIC:
		dwc_pic_write(&pc->pic, port, value);
		return 1;
	case PIT:
		dwc_pit_write(&pc->pit, port, value, now_ns);
		return 1;
	case RTC:
		dwc_rtc_write(&pc->rtc, port, value, now_ns);
		return 1;
	case UART:
		dwc_uart_write(&pc->uart, port - COM1, value);
		return 1;
	case POST_CODE:
	case ACPI_TIMER:
		return 1;
	case NOBODY:
		break;
	}
	return 0;
}

/* A word or double word at devices that are a byte wide is an access to each port in turn. If one of the ports belongs to no device
 * here, Python does the whole access (dwcvmm/pc/bus.py). */
static int serve(struct dwc_pc *pc, const struct dwc_exit *exit, const uint8_t *written, uint8_t *read, uint64_t now_ns)
{
	if (exit->port >= PCI_PORTS && exit->port < PCI_PORTS + 8)
		return exit->is_write ? dwc_pci_write(&pc->pci, exit->port - PCI_PORTS, exit->size, written)
				      : dwc_pci_read(&pc->pci, exit->port - PCI_PORTS, exit->size, read);
	for (unsigned i = 0; i < exit->size; i++)
		if (device_at(exit->port + i) == NOBODY)
			return 0;
	for (unsigned i = 0; i < exit->size; i++)
		if (exit->is_write)
			dwc_pc_write_port(pc, (uint16_t)(exit->port + i), written[i], now_ns);
		else
			read[i] = (uint8_t)dwc_pc_read_port(pc, (uint16_t)(exit->port + i), now_ns);
	return 1;
}

/* Serve a port exit; returns 1 if devices here have served it. All items of a string have the same port, and so the same device. */
int dwc_pc_io(struct dwc_pc *pc, const struct dwc_exit *exit, uint8_t *data, uint64_t now_ns)
{
	int served = exit->reason == KVM_EXIT_IO;

	for (uint32_t i = 0; served && i < exit->count; i++)
		served = serve(pc, exit, exit->data + (size_t)i * exit->size, data + (size_t)i * exit->size, now_ns);
	return served;
}

static void write_lapic(struct dwc_pc *pc, unsigned offset, uint32_t value, uint64_t now_ns)
{
	int ended = dwc_lapic_write(&pc->lapic, offset, value, now_ns);

	if (ended >= 0)
		dwc_ioapic_end(&pc->ioapic, &pc->lapic, (unsigned)ended);
}

static int serve_absent(const struct dwc_pc *pc, const struct dwc_exit *exit, uint8_t *data)
{
	if (exit->gpa < ECAM || exit->gpa >= ECAM + ECAM_BYTES || dwc_pci_present(&pc->pci, (uint32_t)(exit->gpa - ECAM) / DWC_PAGE))
		return 0;
	if (!exit->is_write)
		memset(data, 0xff, exit->size);
	return 1;
}

/* Serve an access to the local APIC, the IO-APIC, or the configuration space of an absent PCI function; returns 1 if it was
 * one. The registers of the APICs are 32 bits wide, and a write of any other width has no effect. */
int dwc_pc_mmio(struct dwc_pc *pc, const struct dwc_exit *exit, uint8_t *data, uint64_t now_ns)
{
	uint64_t page = exit->gpa & ~(uint64_t)(DWC_PAGE - 1);
	unsigned offset = exit->gpa & (DWC_PAGE - 1);
	uint32_t value;

	if (page != LAPIC && page != IOAPIC)
		return serve_absent(pc, exit, data);
	if (exit->is_write) {
		memcpy(&value, exit->data, sizeof value);
		if (exit->size == sizeof value && page == LAPIC)
			write_lapic(pc, offset, value, now_ns);
		else if (exit->size == sizeof value)
			dwc_ioapic_write(&pc->ioapic, &pc->lapic, offset, value);
		return 1;
	}
	value = page == LAPIC ? dwc_lapic_read(&pc->lapic, offset & ~3u, now_ns) : dwc_ioapic_read(&pc->ioapic, offset & ~3u);
	memset(data, 0, exit->size);
	value >>= 8 * (offset & 3);
	memcpy(data, &value, exit->size < sizeof value ? exit->size : sizeof value);
	return 1;
}

/* Bring the interrupt lines up to the guest clock. */
void dwc_pc_tick(struct dwc_pc *pc, uint64_t now_ns)
{
	if (dwc_pit_edges(&pc->pit, now_ns)) {
		dwc_pc_set_gsi(pc, 0, 0); /* lower the line first, so that raising it is an edge */
		dwc_pc_set_gsi(pc, 0, 1);
	}
	if (!dwc_pit_output(&pc->pit, now_ns))
		dwc_pc_set_gsi(pc, 0, 0);
	dwc_pc_set_gsi(pc, 4, dwc_uart_irq(&pc->uart));
	dwc_rtc_tick(&pc->rtc, now_ns);
	dwc_pc_set_gsi(pc, RTC_IRQ, dwc_rtc_irq(&pc->rtc));
	dwc_lapic_tick(&pc->lapic, now_ns);
}

/* Whether an ISA interrupt, which is also at this pin of the IO-APIC, is masked everywhere. */
static int is_masked(const struct dwc_pc *pc, unsigned irq, unsigned pin)
{
	int at_8259 = pc->pic.chip[irq / 8].imr >> irq % 8 & 1 || (irq >= 8 && pc->pic.chip[0].imr >> CASCADE & 1);

	return at_8259 && pc->ioapic.entry[pin] & DWC_IOAPIC_MASKED;
}

/* Guest time at which a device will interrupt next. Masked interrupts are left out. */
uint64_t dwc_pc_deadline(const struct dwc_pc *pc, uint64_t now_ns)
{
	uint64_t first = is_masked(pc, 0, DWC_TIMER_PIN) ? UINT64_MAX : dwc_pit_deadline(&pc->pit, now_ns);
	uint64_t rtc = is_masked(pc, RTC_IRQ, RTC_IRQ) ? UINT64_MAX : dwc_rtc_deadline(&pc->rtc);
	uint64_t lapic = dwc_lapic_deadline(&pc->lapic);

	first = lapic < first ? lapic : first;
	return rtc < first ? rtc : first;
}
