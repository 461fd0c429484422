/* The guest's TSC. */
#ifndef DWC_VCPU_TSC_H
#define DWC_VCPU_TSC_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

struct dwc_tsc {
	uint64_t tick;             /* the host's tick when the frozen TSC was last chosen */
	uint64_t last_read, base;  /* by a site; the value read at guest time 0 */
	uint32_t aux;              /* the MSR TSC_AUX */
};

void dwc_tsc_choose(struct dwc_engine *e);
uint64_t dwc_tsc_next(struct dwc_engine *e);
int dwc_tsc_enter(struct dwc_replica *r);
void dwc_tsc_exit(struct dwc_replica *r);
uint64_t dwc_tsc_end_of_tick(uint64_t tick, uint64_t ratio, unsigned bits);

#endif
