/* The scrubber: compares the three copies of RAM between elements. */
#ifndef DWC_MEMORY_SCRUB_H
#define DWC_MEMORY_SCRUB_H

#include <stdint.h>

struct dwc_engine;

struct dwc_scrub {
	uint64_t from_ns, at;      /* when the rate started to count; the next page */
	uint64_t committed;        /* how many elements were at the last call */
	uint64_t repair_gpa;       /* the last page that was wrong */
	int repair_copy;           /* enum dwc_copy; DWC_COPIES: no copy was right */
};

int dwc_scrub(struct dwc_engine *e);
int dwc_scrub_page(struct dwc_engine *e, uint64_t gpa);
int dwc_page_repair(struct dwc_engine *e, uint64_t gpa);

#endif
