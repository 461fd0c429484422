/* In place: flushes caches between the two runs. */
#ifndef DWC_ELEMENT_CACHES_H
#define DWC_ELEMENT_CACHES_H

struct dwc_engine;

void dwc_caches_prepare(struct dwc_engine *e);
void dwc_caches_flush(struct dwc_engine *e);

#endif
