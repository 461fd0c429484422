/* MC146818: the registers are memory[0] to memory[13] and memory[0x32]. */
#ifndef DWC_PC_RTC_H
#define DWC_PC_RTC_H

#include <stdint.h>

struct dwc_rtc {
	uint8_t index, memory[128];
	uint64_t chain_ns;    /* guest time at which the divider chain began: each second after it is an update */
	uint64_t seen_ns;     /* guest time up to which the registers are right */
	uint64_t deadline_ns; /* of the next interrupt */
};

void dwc_rtc_init(struct dwc_rtc *r, int64_t time, uint32_t ns);
void dwc_rtc_tick(struct dwc_rtc *r, uint64_t now_ns);
uint64_t dwc_rtc_deadline(const struct dwc_rtc *r);
int dwc_rtc_irq(const struct dwc_rtc *r);
uint8_t dwc_rtc_read(struct dwc_rtc *r, uint16_t port, uint64_t now_ns);
void dwc_rtc_write(struct dwc_rtc *r, uint16_t port, uint8_t value, uint64_t now_ns);

#endif
