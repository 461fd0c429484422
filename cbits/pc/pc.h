/* The PC: its devices in C, their answers to the guest, and the way from their lines to an interrupt's vector. */
#ifndef DWC_PC_PC_H
#define DWC_PC_PC_H

#include <stddef.h>
#include <stdint.h>

#include "pc/ioapic.h"
#include "pc/lapic.h"
#include "pc/pci.h"
#include "pc/pic.h"
#include "pc/pit.h"
#include "pc/power.h"
#include "pc/rtc.h"
#include "pc/sent.h"
#include "pc/uart.h"

struct dwc_exit;
struct dwc_place;

#define DWC_UARTS 4

/* All state of these devices; guest time is passed in. Neither it nor a part of it has a pointer, so an assignment copies a PC
 * (tests/unit/test_platform.py lets the original and a copy go on). Its last member ends with the bytes that were sent. */
struct dwc_pc {
	struct dwc_pic pic;
	struct dwc_ioapic ioapic;
	struct dwc_lapic lapic;
	struct dwc_pit pit;
	struct dwc_rtc rtc;
	struct dwc_power power;
	struct dwc_pci pci;
	struct dwc_uart uarts[DWC_UARTS]; /* COM1 to COM4 */
	struct dwc_sent sent;
};

#define DWC_PC_BYTES offsetof(struct dwc_pc, sent.runs) /* without what the serial ports have sent */

void dwc_pc_copy(struct dwc_pc *to, const struct dwc_pc *from);
int dwc_pc_is_same(const struct dwc_pc *a, const struct dwc_pc *b);
size_t dwc_pc_bytes(const struct dwc_pc *pc);
void dwc_pc_init(struct dwc_pc *pc, int64_t time, uint32_t ns, unsigned serial_ports);
int dwc_pc_mmio(struct dwc_pc *pc, const struct dwc_exit *exit, uint8_t *data, uint64_t now_ns);
int dwc_pc_io(struct dwc_pc *pc, const struct dwc_exit *exit, uint8_t *data, uint64_t now_ns);
int dwc_pc_read(struct dwc_pc *pc, int in_memory, uint64_t address, unsigned size, uint8_t *data, uint64_t now_ns, struct dwc_place *left);
int dwc_pc_write(struct dwc_pc *pc, int in_memory, uint64_t address, unsigned size, const uint8_t *data, uint64_t now_ns,
		 struct dwc_place *left);
void dwc_pc_tick(struct dwc_pc *pc, uint64_t now_ns);
uint64_t dwc_pc_deadline(const struct dwc_pc *pc, uint64_t now_ns);

#endif
