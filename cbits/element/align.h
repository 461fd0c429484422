/* Alignment: brings both replicas to the same instruction. */
#ifndef DWC_ELEMENT_ALIGN_H
#define DWC_ELEMENT_ALIGN_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

/* What alignment has learned about the counters, in sixteenths of an event: by how much replica B counts more up to the same point,
 * how much single cases differ from that, and how late an overflow ends a run. */
struct dwc_counter_habits {
	int64_t bias, spread, skid;
};

uint64_t dwc_budget_to_end_at(const struct dwc_engine *e, uint64_t count);
uint64_t dwc_budget_of_b(const struct dwc_engine *e, uint64_t count);
int dwc_agree(struct dwc_engine *e);
int dwc_cannot_be_recorded(struct dwc_replica *r);
int dwc_align(struct dwc_engine *e);
int dwc_align_to_natural(struct dwc_replica *r, uint64_t limit);

#endif
