/* Between two elements: the device that the last one ended for, requests from outside, idle time. */
#ifndef DWC_ELEMENT_BETWEEN_H
#define DWC_ELEMENT_BETWEEN_H

struct dwc_engine;

int dwc_is_stop_requested(const struct dwc_engine *e);
int dwc_between_elements(struct dwc_engine *e);
int dwc_act(struct dwc_engine *e);

#endif
