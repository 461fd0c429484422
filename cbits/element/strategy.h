/* What the strategies do differently in the life of an element. */
#ifndef DWC_ELEMENT_STRATEGY_H
#define DWC_ELEMENT_STRATEGY_H

#include "engine.h"

/* The runs start in phase RUNNING, and return 0 in the phase that they have led to, an enum dwc_stop, or -errno. */
struct dwc_strategy_ops {
	int vms;                              /* that there are; without two the other replica is what the first has left, or nothing */
	int protects;                         /* each element is run twice */
	int (*settle)(struct dwc_engine *e);  /* in place: make the VM ready for the next element; NULL: there is nothing to do */
	int (*run)(struct dwc_engine *e);     /* both runs, or the first */
	int (*run_again)(struct dwc_engine *e); /* from FIRST_RUN_DONE on */
};

const struct dwc_strategy_ops *dwc_strategy_ops(enum dwc_strategy strategy);

#endif
