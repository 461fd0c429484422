/* The scan: a search by one free run with traps. */
#ifndef DWC_SITES_SCAN_H
#define DWC_SITES_SCAN_H

struct dwc_engine;

int dwc_search_by_traps(struct dwc_engine *e);

#endif
