/* The life of an element. */
#ifndef DWC_ELEMENT_ELEMENT_H
#define DWC_ELEMENT_ELEMENT_H

#include <stdint.h>

struct dwc_engine;

int dwc_engine_run(struct dwc_engine *e, uint64_t elements, uint64_t visit_from);

#endif
