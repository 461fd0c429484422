/* Single steps: to end an element without a counter, to go to a point in it, and to bring two replicas to the same instruction. */
#ifndef DWC_ELEMENT_STEPS_H
#define DWC_ELEMENT_STEPS_H

#include <stdint.h>

struct dwc_engine;

/* How far to go, and how many instructions were executed. */
struct dwc_steps {
	uint64_t limit, done;
	int to_interruptible; /* stop as soon as an interrupt can be injected */
};

int dwc_step_until(struct dwc_engine *e, int replica, uint64_t limit, int to_interruptible);
int dwc_step_element(struct dwc_engine *e, uint64_t limit, int to_interruptible);
int dwc_step_together(struct dwc_engine *e, uint64_t limit);
int dwc_step_to_a(struct dwc_engine *e, uint64_t limit);

#endif
