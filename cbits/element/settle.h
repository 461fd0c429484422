/* A settling element: the rest of an instruction, so that nothing is pending after it. */
#ifndef DWC_ELEMENT_SETTLE_H
#define DWC_ELEMENT_SETTLE_H

struct dwc_engine;
struct dwc_state;

int dwc_run_settling(struct dwc_engine *e);
int dwc_is_settled(const struct dwc_engine *e);
int dwc_settled_state(struct dwc_engine *e, struct dwc_state *out);

#endif
