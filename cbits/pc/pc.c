/* The devices that answer without Python, because guests access them all the time or because their interrupts follow the guest
 * clock (docs/decisions/0001-devices-in-c.md): which device an access is for, and their interrupts. */
#include "pc/pc.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "pc/access.h"
#include "pc/interrupts.h"
#include "pc/ioapic.h"
#include "pc/lapic.h"
#include "pc/pci.h"
#include "pc/pic.h"
#include "pc/pit.h"
#include "pc/power.h"
#include "pc/rtc.h"
#include "pc/sent.h"
#include "pc/uart.h"
#include "vcpu/exit.h"

#define COM1 0x3f8
#define COM2 0x2f8
#define COM3 0x3e8
#define COM4 0x2e8
#define COM1_IRQ 4 /* and COM3's */
#define COM2_IRQ 3 /* and COM4's */
#define PM_TIMER 0x608
#define PM_TIMER_HZ 3579545 /* ACPI 4.8.3.3 */
#define NS_PER_S 1000000000
#define RTC_IRQ 8
#define SCI 9
#define CASCADE 2 /* the second 8259 is behind this input of the first */

/* Where a device is, and what serves an access there: it returns 0 if the access is for Python, or has to wait until it is committed. */
struct region {
	uint64_t first, last;
	int (*serve)(struct dwc_pc *pc, const struct dwc_access *a);
	int byte_wide; /* a wider access is one to each byte in turn */
};

static int serve_pic(struct dwc_pc *pc, const struct dwc_access *a)
{
	if (a->written)
		dwc_pic_write(&pc->pic, (uint16_t)a->address, a->written[0]);
	else
		a->read[0] = dwc_pic_read(&pc->pic, (uint16_t)a->address);
	return 1;
}

static int serve_pit(struct dwc_pc *pc, const struct dwc_access *a)
{
	if (a->written)
		dwc_pit_write(&pc->pit, (uint16_t)a->address, a->written[0], a->now_ns);
	else
		a->read[0] = dwc_pit_read(&pc->pit, (uint16_t)a->address, a->now_ns);
	return 1;
}

static int serve_rtc(struct dwc_pc *pc, const struct dwc_access *a)
{
	if (a->written)
		dwc_rtc_write(&pc->rtc, (uint16_t)a->address, a->written[0], a->now_ns);
	else
		a->read[0] = dwc_rtc_read(&pc->rtc, (uint16_t)a->address, a->now_ns);
	return 1;
}

static int serve_post_code(struct dwc_pc *pc, const struct dwc_access *a)
{
	if (!a->written)
		a->read[0] = 0xff;
	return 1;
}

static int serve_uart(struct dwc_pc *pc, unsigned index, const struct dwc_access *a)
{
	struct dwc_uart *uart = &pc->uarts[index];

	if (!uart->present)
		return 0; /* nothing is there, as at any port that nobody serves */
	if (!a->written)
		a->read[0] = dwc_uart_read(uart, a->at);
	else if (dwc_uart_write(uart, a->at, a->written[0]))
		dwc_sent_add(&pc->sent, index, a->written[0]);
	return 1;
}

static int serve_com1(struct dwc_pc *pc, const struct dwc_access *a)
{
	return serve_uart(pc, 0, a);
}

static int serve_com2(struct dwc_pc *pc, const struct dwc_access *a)
{
	return serve_uart(pc, 1, a);
}

static int serve_com3(struct dwc_pc *pc, const struct dwc_access *a)
{
	return serve_uart(pc, 2, a);
}

static int serve_com4(struct dwc_pc *pc, const struct dwc_access *a)
{
	return serve_uart(pc, 3, a);
}

static int serve_power_events(struct dwc_pc *pc, const struct dwc_access *a)
{
	return dwc_power_events(&pc->power, a);
}

static int serve_power_control(struct dwc_pc *pc, const struct dwc_access *a)
{
	return dwc_power_control(&pc->power, a);
}

static int serve_acpi_timer(struct dwc_pc *pc, const struct dwc_access *a)
{
	if (!a->written)
		dwc_answer(a, a->at, (uint32_t)((unsigned __int128)a->now_ns * PM_TIMER_HZ / NS_PER_S));
	return 1;
}

static int serve_reset(struct dwc_pc *pc, const struct dwc_access *a)
{
	return dwc_power_reset(&pc->power, a);
}

static int serve_pci_ports(struct dwc_pc *pc, const struct dwc_access *a)
{
	int served = dwc_pci_ports(&pc->pci, a);

	dwc_pc_follow_pins(pc);
	return served;
}

static int serve_ecam(struct dwc_pc *pc, const struct dwc_access *a)
{
	int served = dwc_pci_ecam(&pc->pci, a);

	dwc_pc_follow_pins(pc);
	return served;
}

static int serve_pci_memory(struct dwc_pc *pc, const struct dwc_access *a)
{
	int served = dwc_pci_memory(&pc->pci, a);

	dwc_pc_follow_pins(pc);
	return served;
}

/* The registers of both APICs are 32 bits wide, and a write of any other width has no effect. */
static int serve_lapic(struct dwc_pc *pc, const struct dwc_access *a)
{
	int ended;

	if (!a->written) {
		dwc_answer(a, a->at & 3, dwc_lapic_read(&pc->lapic, a->at & ~3u, a->now_ns));
	} else if (a->size == sizeof(uint32_t)) {
		ended = dwc_lapic_write(&pc->lapic, a->at, (uint32_t)dwc_merged(a, 0, 0), a->now_ns);
		if (ended >= 0)
			dwc_ioapic_end(&pc->ioapic, &pc->lapic, (unsigned)ended);
	}
	return 1;
}

static int serve_ioapic(struct dwc_pc *pc, const struct dwc_access *a)
{
	if (!a->written)
		dwc_answer(a, a->at & 3, dwc_ioapic_read(&pc->ioapic, a->at & ~3u));
	else if (a->size == sizeof(uint32_t))
		dwc_ioapic_write(&pc->ioapic, &pc->lapic, a->at, (uint32_t)dwc_merged(a, 0, 0));
	return 1;
}

/* The devices in C by their ports. An access belongs to the first region that contains all of it. Addresses are those of
 * dwcvmm/pc/layout.py. */
static const struct region ports[] = {
	{ COM1, COM1 + 7, serve_com1, 1 },
	{ 0x80, 0x80, serve_post_code, 1 }, /* Linux delays I/O by writing here */
	{ 0x20, 0x21, serve_pic, 1 },
	{ 0xa0, 0xa1, serve_pic, 1 },
	{ 0x40, 0x43, serve_pit, 1 },
	{ 0x61, 0x61, serve_pit, 1 },
	{ 0xcf9, 0xcf9, serve_reset, 1 }, /* a byte within PCI's address register */
	{ 0xcf8, 0xcff, serve_pci_ports, 0 },
	{ PM_TIMER, PM_TIMER + 3, serve_acpi_timer, 0 },
	{ 0x70, 0x71, serve_rtc, 1 },
	{ 0x4d0, 0x4d1, serve_pic, 1 },
	{ 0x600, 0x603, serve_power_events, 0 },
	{ 0x604, 0x605, serve_power_control, 0 },
	{ COM2, COM2 + 7, serve_com2, 1 },
	{ COM3, COM3 + 7, serve_com3, 1 },
	{ COM4, COM4 + 7, serve_com4, 1 },
};

/* The same for physical addresses. The memory of PCI devices is where their base address registers say, and nothing else is. */
static const struct region memory[] = {
	{ 0xfee00000, 0xfee00fff, serve_lapic, 0 },
	{ 0xfec00000, 0xfec00fff, serve_ioapic, 0 },
	{ 0xb0000000, 0xb00fffff, serve_ecam, 0 },
	{ 0xfedc0604, 0xfedc0605, serve_power_control, 0 }, /* for guests without port access */
	{ 0, UINT64_MAX, serve_pci_memory, 0 },
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct region *find(const struct region *regions, size_t count, uint64_t address, unsigned size)
{
	for (const struct region *r = regions; r < regions + count; r++)
		if (address >= r->first && address + size - 1 <= r->last)
			return r;
	return NULL;
}

static int serve_bytes(struct dwc_pc *pc, const struct region *region, const struct dwc_access *a)
{
	struct dwc_access byte = *a;
	int served = 1;

	byte.size = 1;
	for (unsigned i = 0; served && i < a->size; i++) {
		byte.address = a->address + i;
		byte.at = a->at + i;
		byte.written = a->written ? a->written + i : NULL;
		byte.read = a->read ? a->read + i : NULL;
		served = region->serve(pc, &byte);
	}
	return served;
}

static int serve(struct dwc_pc *pc, const struct region *region, struct dwc_access *a)
{
	a->at = (unsigned)(a->address - region->first);
	return region->byte_wide ? serve_bytes(pc, region, a) : region->serve(pc, a);
}

/* The size of its state, which leaves out room for bytes that were not sent. A fault may have changed their number. */
size_t dwc_pc_bytes(const struct dwc_pc *pc)
{
	return DWC_PC_BYTES + (pc->sent.count < DWC_SENT_BYTES ? pc->sent.count : DWC_SENT_BYTES);
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

/* Put the devices into the state in which firmware leaves them. `time`: seconds since 1970, UTC, plus nanoseconds, at guest time 0.
 * `serial_ports`: so many of COM1 to COM4 are there. */
void dwc_pc_init(struct dwc_pc *pc, int64_t time, uint32_t ns, unsigned serial_ports)
{
	memset(pc, 0, sizeof *pc);
	dwc_pic_init(&pc->pic);
	dwc_ioapic_init(&pc->ioapic);
	dwc_lapic_init(&pc->lapic);
	dwc_pit_init(&pc->pit);
	dwc_rtc_init(&pc->rtc, time, ns);
	dwc_pci_init(&pc->pci);
	for (unsigned i = 0; i < serial_ports && i < DWC_UARTS; i++)
		dwc_uart_init(&pc->uarts[i]);
}

/* Serve a port exit; returns 1 if devices here have served it. Else nothing has changed, and Python does it after its element, by
 * dwc_pc_read() and dwc_pc_write(): devices in Python, several devices at once, what leaves the machine. All items of a
 * string have the same port; one that could leave the machine is left to Python whole. */
int dwc_pc_io(struct dwc_pc *pc, const struct dwc_exit *exit, uint8_t *data, uint64_t now_ns)
{
	struct dwc_access a = { .address = exit->port, .size = exit->size, .now_ns = now_ns };
	const struct region *region;

	if (exit->reason != KVM_EXIT_IO || !(region = find(ports, COUNT(ports), exit->port, exit->size)))
		return 0;
	if (exit->count > 1 && exit->is_write && (!region->byte_wide || region->serve == serve_reset))
		return 0;
	for (size_t i = 0; i < exit->count; i++) {
		a.written = exit->is_write ? exit->data + i * exit->size : NULL;
		a.read = data + i * exit->size;
		if (!serve(pc, region, &a))
			return 0;
	}
	return 1;
}

/* Serve an access to memory; returns as dwc_pc_io() does. */
int dwc_pc_mmio(struct dwc_pc *pc, const struct dwc_exit *exit, uint8_t *data, uint64_t now_ns)
{
	struct dwc_access a = { .address = exit->gpa, .size = exit->size, .now_ns = now_ns, .read = data };

	a.written = exit->is_write ? exit->data : NULL;
	return serve(pc, find(memory, COUNT(memory), a.address, a.size), &a);
}

/* As on an ISA bus two ports share a line. */
static void raise_serial_lines(struct dwc_pc *pc)
{
	const struct dwc_uart *u = pc->uarts;

	dwc_pc_set_gsi(pc, COM1_IRQ, dwc_uart_irq(&u[0]) || dwc_uart_irq(&u[2]));
	if (u[1].present)
		dwc_pc_set_gsi(pc, COM2_IRQ, dwc_uart_irq(&u[1]) || dwc_uart_irq(&u[3]));
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
	raise_serial_lines(pc);
	dwc_rtc_tick(&pc->rtc, now_ns);
	dwc_pc_set_gsi(pc, RTC_IRQ, dwc_rtc_irq(&pc->rtc));
	dwc_pc_set_gsi(pc, SCI, dwc_power_irq(&pc->power));
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

static int serve_committed(struct dwc_pc *pc, int in_memory, struct dwc_access *a)
{
	const struct region *region = in_memory ? find(memory, COUNT(memory), a->address, a->size)
						: find(ports, COUNT(ports), a->address, a->size);

	a->committed = 1;
	return region && serve(pc, region, a);
}

/* Read for a committed exit, at a port or in memory. Returns 1 if a device here has answered. If the access is for a part of a PCI
 * device's memory that is in Python, `left` is set to it. */
int dwc_pc_read(struct dwc_pc *pc, int in_memory, uint64_t address, unsigned size, uint8_t *data, uint64_t now_ns, struct dwc_place *left)
{
	struct dwc_access a = { .address = address, .size = size, .read = data, .now_ns = now_ns, .left = left };

	return serve_committed(pc, in_memory, &a);
}

/* Write for a committed exit, also what leaves the machine: `power.end` and `pci.waiting` say so. Returns as dwc_pc_read() does. */
int dwc_pc_write(struct dwc_pc *pc, int in_memory, uint64_t address, unsigned size, const uint8_t *data, uint64_t now_ns,
		 struct dwc_place *left)
{
	struct dwc_access a = { .address = address, .size = size, .written = data, .now_ns = now_ns, .left = left };

	return serve_committed(pc, in_memory, &a);
}
