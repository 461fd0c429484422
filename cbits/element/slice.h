/* Slices: after how many events an element is ended. */
#ifndef DWC_ELEMENT_SLICE_H
#define DWC_ELEMENT_SLICE_H

struct dwc_engine;
struct dwc_replica;

int dwc_slice_plan(struct dwc_engine *e);
int dwc_slice_arm(struct dwc_replica *r);
int dwc_slice_measure(struct dwc_engine *e);
void dwc_slice_note(struct dwc_engine *e);

#endif
