/* What the strategies do differently in the life of an element. */
#ifndef DWC_ELEMENT_STRATEGY_H
#define DWC_ELEMENT_STRATEGY_H

#include "engine.h"

/* The runs start in phase RUNNING. They return 0 after setting the phase that they have reached, an enum dwc_stop, or -errno. */
struct dwc_strategy_ops {
	int vms;                              /* how many VMs; with one, replica B is what e1 has left (in place), or unused (off) */
	int protects;                         /* each element is run twice */
	int (*make_ready)(struct dwc_engine *e);  /* in place: make the VM ready for the next element; NULL: nothing to do */
	int (*run)(struct dwc_engine *e);     /* both runs, or the first */
	int (*run_again)(struct dwc_engine *e); /* from FIRST_RUN_DONE on */
};

const struct dwc_strategy_ops *dwc_strategy_ops(enum dwc_strategy strategy);

#endif
