/* What the serial ports have sent and the host has not taken yet. */
#ifndef DWC_PC_SENT_H
#define DWC_PC_SENT_H

#include <stdint.h>

#define DWC_SENT_BYTES 8192
#define DWC_SENT_HEAD 2 /* bytes of a run's head */

/* Runs of bytes from one port: a head, which is the port's index and the number of bytes (1 to 255), and the bytes. So a machine
 * with one port has little more to copy than what was sent. */
struct dwc_sent {
	uint8_t line_ended;  /* there is a newline in it */
	uint16_t last;       /* where the last run starts */
	uint16_t count;      /* bytes of `runs` that are in use */
	uint8_t runs[DWC_SENT_BYTES]; /* the last member: only `count` bytes of it are copied (dwc_pc_copy) */
};

void dwc_sent_add(struct dwc_sent *sent, unsigned port, uint8_t value);
void dwc_sent_clear(struct dwc_sent *sent);
int dwc_sent_is_full(const struct dwc_sent *sent);
int dwc_sent_wants_drain(const struct dwc_sent *sent);

#endif
