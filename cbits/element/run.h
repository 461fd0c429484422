/* A replica's run of an element. */
#ifndef DWC_ELEMENT_RUN_H
#define DWC_ELEMENT_RUN_H

struct dwc_engine;
struct dwc_replica;

int dwc_job_element(struct dwc_replica *r);
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r);

#endif
