/* What a debugger does with a guest that stands at a settled state. */
#ifndef DWC_ELEMENT_DEBUGGER_H
#define DWC_ELEMENT_DEBUGGER_H

#include <stdint.h>

struct dwc_engine;
struct dwc_point;
struct dwc_state;

int dwc_points_set(struct dwc_engine *e, const struct dwc_point *points, uint32_t count, int in_hardware);
int dwc_look_for_points(struct dwc_engine *e);
int dwc_set_settled_state(struct dwc_engine *e, const struct dwc_state *in);
int dwc_step_guest(struct dwc_engine *e, uint64_t limit);

#endif
