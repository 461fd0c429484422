/* The inputs of an element. */
#ifndef DWC_ELEMENT_CHOOSE_H
#define DWC_ELEMENT_CHOOSE_H

struct dwc_engine;

void dwc_choose_inputs(struct dwc_engine *e);

#endif
