/* A replica's run of an element. */
#ifndef DWC_ELEMENT_RUN_H
#define DWC_ELEMENT_RUN_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

int dwc_job_element(struct dwc_replica *r);
int dwc_run_on(struct dwc_replica *r, uint32_t inner_limit);
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r);
int dwc_cut(struct dwc_engine *e, const struct dwc_replica *r);
int dwc_stop_of(int run_end);

#endif
