/* The exact stop: both replicas brought to the same instruction. */
#ifndef DWC_ELEMENT_ALIGN_H
#define DWC_ELEMENT_ALIGN_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

/* What alignment has learned of the counters, in sixteenths of an event: how much more replica B counts up to the same point,
 * how far single cases are from that, and how late an overflow ends a run. */
struct dwc_counter_habits {
	int64_t bias, spread, skid;
};

uint64_t dwc_budget_to_end_at(const struct dwc_engine *e, uint64_t count);
uint64_t dwc_budget_of_b(const struct dwc_engine *e, uint64_t count);
int dwc_align(struct dwc_engine *e);
int dwc_align_to_natural(struct dwc_replica *r, uint64_t limit);

#endif
