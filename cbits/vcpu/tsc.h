/* The guest's TSC. */
#ifndef DWC_VCPU_TSC_H
#define DWC_VCPU_TSC_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

void dwc_tsc_choose(struct dwc_engine *e);
uint64_t dwc_tsc_next(struct dwc_engine *e);
int dwc_tsc_enter(struct dwc_replica *r);
void dwc_tsc_exit(struct dwc_replica *r, uint64_t ran_ns);

#endif
