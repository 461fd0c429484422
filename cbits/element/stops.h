/* The points at which a replay is to stop. */
#ifndef DWC_ELEMENT_STOPS_H
#define DWC_ELEMENT_STOPS_H

#include <stdint.h>

struct dwc_engine;
struct dwc_point;

void dwc_stops_set(struct dwc_engine *e, const struct dwc_point *points, uint32_t count, int stops);
int dwc_stops_arm(struct dwc_engine *e, int on);
int dwc_stops_changed(struct dwc_engine *e);
int dwc_stands_at_exit(const struct dwc_engine *e);
int dwc_is_fresh(const struct dwc_engine *e);
int dwc_stands_at_point(const struct dwc_engine *e);

#endif
