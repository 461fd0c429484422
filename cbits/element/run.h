/* A replica's run of an element. */
#ifndef DWC_ELEMENT_RUN_H
#define DWC_ELEMENT_RUN_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

uint64_t dwc_time_limit(struct dwc_engine *e);
int dwc_job_element(struct dwc_replica *r);
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r);
int dwc_stop_of(int run_end);

#endif
