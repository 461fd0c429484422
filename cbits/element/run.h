/* A replica's run of an element. */
#ifndef DWC_ELEMENT_RUN_H
#define DWC_ELEMENT_RUN_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

/* The last element that was cut. */
struct dwc_cut {
	uint64_t without_exit_ns; /* for how long it had run since its start, or its last inner exit: host time */
	uint64_t last;            /* it ends at its last inner exit now; no exit is near behind this number of elements */
	int waits;                /* the guest waited in a loop */
	int meets;                /* when it last did, both replicas were brought to one point there (element/loop.c) */
	unsigned misses, left_out; /* how often they were not, in a row; for how many waits it is not tried */
};

int dwc_job_element(struct dwc_replica *r);
int dwc_run_on(struct dwc_replica *r, uint32_t inner_limit);
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r);
int dwc_cut(struct dwc_engine *e, const struct dwc_replica *r);
int dwc_is_cut_already(const struct dwc_engine *e);
int dwc_stop_of(int run_end);

#endif
