/* Memory: which pages a run wrote, whether both runs wrote the same, commit and rollback. */
#ifndef DWC_MEMORY_PAGES_H
#define DWC_MEMORY_PAGES_H

#include <stdint.h>

#define DWC_MAX_DIFFS 64
#define DWC_COLD 255       /* it has left the dirty logs, and is write-protected */
#define DWC_MOST_IDLE 254
#define DWC_MOST_RETURNS 8 /* doubled as often, an idle limit is DWC_MOST_IDLE at least */

struct dwc_engine;
struct dwc_replica;

/* A page in either dirty log, and what its comparison found. */
struct dwc_dirty {
	uint32_t page; /* gpa / DWC_PAGE */
	uint8_t differs, changed;
};

/* Pages in the dirty logs, in the order of their numbers. Arrays have room for all of RAM, and need memory for what is used of them. */
struct dwc_dirty_pages {
	uint8_t *idle;             /* for each page: checkpoints since its content changed, while it stayed writable; or DWC_COLD */
	uint8_t *returns;          /* for each page: how often it was written again after it was protected, DWC_MOST_RETURNS at most */
	struct dwc_dirty *pages;   /* of this element, like the next three */
	uint32_t *changed;         /* numbers of pages that differ from the checkpoint */
	uint32_t *cold;            /* of those to write-protect again at this commit */
	uint64_t *clear;           /* a bitmap for KVM_CLEAR_DIRTY_LOG, as for the largest slot; between calls all zero */
	uint32_t count, changed_count, cold_count;
	int compare_all;           /* compare also with the checkpoint */
};

/* What differed in the last comparison that failed. */
struct dwc_divergence {
	uint32_t groups;           /* enum dwc_diff */
	uint32_t page_count;       /* including pages without room here */
	uint64_t gpa[DWC_MAX_DIFFS];
};

int dwc_pages_harvest(struct dwc_replica *r);
void dwc_pages_list(struct dwc_engine *e);
uint32_t dwc_pages_compare(struct dwc_engine *e, int at_checkpoint);
int dwc_pages_commit(struct dwc_engine *e);
int dwc_pages_rollback(struct dwc_engine *e, int all);
int dwc_pages_readd_slot(struct dwc_engine *e);

#endif
