/* Strategy in-place: one VM runs each element twice. */
#ifndef DWC_ELEMENT_INPLACE_H
#define DWC_ELEMENT_INPLACE_H

#include "vcpu/state.h"

struct dwc_engine;

struct dwc_in_place {
	struct dwc_msrs msrs_given; /* to KVM, last */
};

int dwc_inplace_make_ready(struct dwc_engine *e);
int dwc_inplace_rewind(struct dwc_engine *e);
int dwc_inplace_run(struct dwc_engine *e);
int dwc_inplace_run_again(struct dwc_engine *e);

#endif
