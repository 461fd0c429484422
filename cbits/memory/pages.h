/* Memory: which pages a run wrote, whether both runs wrote the same, commit and rollback. */
#ifndef DWC_MEMORY_PAGES_H
#define DWC_MEMORY_PAGES_H

#include <stdint.h>

#define DWC_MAX_DIFFS 64

struct dwc_engine;
struct dwc_replica;

/* A page in either dirty log, and what its comparison found. */
struct dwc_dirty {
	uint32_t page; /* gpa / DWC_PAGE */
	uint8_t differs, changed;
};

int dwc_pages_harvest(struct dwc_replica *r);
void dwc_pages_list(struct dwc_engine *e);
uint32_t dwc_pages_compare(struct dwc_engine *e, int at_checkpoint);
int dwc_pages_commit(struct dwc_engine *e);
int dwc_pages_rollback(struct dwc_engine *e, int all);
int dwc_pages_rearm(struct dwc_engine *e);

#endif
