/* Slices: after how many events an element is ended. */
#ifndef DWC_ELEMENT_SLICE_H
#define DWC_ELEMENT_SLICE_H

#include <stdint.h>

#include "element/align.h"

struct dwc_engine;
struct dwc_replica;

/* The current slice, and what was learned for the next one. */
struct dwc_slice {
	int arm, counts_void; /* this element starts a new slice; it must, because the counts are void */
	uint64_t events, budget;
	uint64_t used_ns;          /* guest time since the counters were armed */
	uint64_t events_per_ms;    /* events in a millisecond of guest time */
	struct dwc_counter_habits habits;
};

void dwc_slice_plan(struct dwc_engine *e);
void dwc_slice_arm(struct dwc_replica *r);
void dwc_slice_measure(struct dwc_engine *e);
void dwc_slice_note(struct dwc_engine *e);

#endif
