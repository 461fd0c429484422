/* Locates a read of the host by a search from the last committed state on. */
#ifndef DWC_ELEMENT_LOCATE_H
#define DWC_ELEMENT_LOCATE_H

struct dwc_engine;

int dwc_locate_by_traps(struct dwc_engine *e);
int dwc_locate_by_steps(struct dwc_engine *e);

#endif
