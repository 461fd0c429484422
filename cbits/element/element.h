/* The life of an element. */
#ifndef DWC_ELEMENT_ELEMENT_H
#define DWC_ELEMENT_ELEMENT_H

struct dwc_engine;
struct dwc_replica;

int dwc_job_element(struct dwc_replica *r);
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r);
int dwc_engine_run(struct dwc_engine *e);

#endif
