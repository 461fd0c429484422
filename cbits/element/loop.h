/* A guest that waits in a loop: brings both replicas to the same point in it. */
#ifndef DWC_ELEMENT_LOOP_H
#define DWC_ELEMENT_LOOP_H

struct dwc_engine;

int dwc_loop_follow(struct dwc_engine *e);
int dwc_loop_meet(struct dwc_engine *e);

#endif
