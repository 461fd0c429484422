/* Moves within a recorded element. */
#ifndef DWC_ELEMENT_WITHIN_H
#define DWC_ELEMENT_WITHIN_H

#include <stdint.h>

struct dwc_engine;
struct dwc_point;

int dwc_within_run(struct dwc_engine *e, uint32_t skip);
int dwc_within_step(struct dwc_engine *e, uint64_t limit);
uint32_t dwc_within_exits(const struct dwc_engine *e);
int dwc_within_to_exit(struct dwc_engine *e, uint32_t number);
int dwc_within_pass(struct dwc_engine *e, const struct dwc_point *targets, uint32_t count);

#endif
