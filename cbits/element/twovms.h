/* Strategies sequential and parallel: a VM for each run. */
#ifndef DWC_ELEMENT_TWOVMS_H
#define DWC_ELEMENT_TWOVMS_H

struct dwc_engine;

int dwc_run_sequential(struct dwc_engine *e);
int dwc_run_parallel(struct dwc_engine *e);

#endif
