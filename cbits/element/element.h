/* The life of an element. */
#ifndef DWC_ELEMENT_ELEMENT_H
#define DWC_ELEMENT_ELEMENT_H

struct dwc_engine;

int dwc_engine_run(struct dwc_engine *e);

#endif
