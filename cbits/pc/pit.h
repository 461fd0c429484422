/* 8254 (Intel 231164) and the PC's port 0x61. Times are in ticks of its clock. */
#ifndef DWC_PC_PIT_H
#define DWC_PC_PIT_H

#include <stdint.h>

struct dwc_pit_channel {
	uint32_t reload, next; /* counts, 1 to 65536; next: written, but used only from next_at or the next trigger on; 0: none */
	uint64_t start, held, next_at;
	uint64_t rises; /* rising edges before `start` */
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

#endif
