/* A recorded element is run again. */
#ifndef DWC_ELEMENT_REPEAT_H
#define DWC_ELEMENT_REPEAT_H

struct dwc_engine;
struct dwc_recorded;
struct dwc_recorded_sums;

int dwc_repeat_element(struct dwc_engine *e, const struct dwc_recorded *x);
int dwc_repeat_is_there(struct dwc_engine *e, const struct dwc_recorded *x);
int dwc_repeat_rest(struct dwc_engine *e, const struct dwc_recorded *x);
int dwc_repeat_checkpoint(struct dwc_engine *e, const struct dwc_recorded_sums *x);

#endif
