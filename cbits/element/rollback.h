/* Brings both replicas back to the last committed state. */
#ifndef DWC_ELEMENT_ROLLBACK_H
#define DWC_ELEMENT_ROLLBACK_H

#include "phase.h"

struct dwc_engine;
struct dwc_replica;

int dwc_job_restore(struct dwc_replica *r);
int dwc_engine_rollback(struct dwc_engine *e, int all, enum dwc_phase to);

#endif
