/* Local APIC (SDM 3A chapter 11). */
#ifndef DWC_PC_LAPIC_H
#define DWC_PC_LAPIC_H

#include <stdint.h>

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

#endif
