/* The scrubber: between elements it compares the three copies of pages that have not been written since the checkpoint,
 * and repairs a copy that is wrong. */
#include "memory/scrub.h"

#include <string.h>

#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "memory/guard.h"
#include "memory/pages.h"
#include "ram.h"
#include "replica/replica.h"
#include "status.h"
#include "sum.h"

#define MOST_PAGES 32 /* at a time, which takes about 40 us */
#define NS_PER_S 1000000000ull

static int is_logged(const struct dwc_engine *e, uint64_t gpa)
{
	int slot = dwc_slot_of(gpa);
	uint64_t at = (gpa - e->replicas[0].slots[slot].gpa) / DWC_PAGE;

	return (e->replicas[0].slots[slot].dirty[at / 64] | e->replicas[1].slots[slot].dirty[at / 64]) >> (at % 64) & 1;
}

static void repaired(struct dwc_engine *e, int copy, uint64_t gpa)
{
	e->stats.scrub_repairs[copy]++;
	e->scrub.repair_copy = copy;
	e->scrub.repair_gpa = gpa;
}

static int same(const uint8_t *a, const uint8_t *b)
{
	return !memcmp(a, b, DWC_PAGE);
}

/* Which copy is right: one that fits the sum, else one of two that agree (then the sum is wrong); -1: none. But replicas that
 * agree are never overwritten: if only the checkpoint fits the sum, a write has escaped the logs, or there were two faults. */
static int right_copy(const struct dwc_engine *e, uint64_t gpa, uint8_t *const *copies)
{
	uint64_t sum = e->checkpoint.sums[gpa / DWC_PAGE];
	int saved_fits = dwc_page_sum(copies[DWC_COPY_CHECKPOINT]) == sum;

	for (int i = DWC_COPY_A; i <= DWC_COPY_B; i++)
		if (dwc_page_sum(copies[i]) == sum)
			return i;
	if (same(copies[DWC_COPY_A], copies[DWC_COPY_B]))
		return saved_fits ? -1 : DWC_COPY_A;
	if (saved_fits || same(copies[DWC_COPY_A], copies[DWC_COPY_CHECKPOINT]) ||
	    same(copies[DWC_COPY_B], copies[DWC_COPY_CHECKPOINT]))
		return DWC_COPY_CHECKPOINT;
	return -1;
}

/* Make the copies of a page agree. Both replicas must be at a checkpoint, or must not have written the page since. Returns 0 if no
 * copy is right; that is counted, and the page is left alone. */
int dwc_page_repair(struct dwc_engine *e, uint64_t gpa)
{
	uint8_t *const copies[DWC_COPIES] = { e->replicas[0].ram + gpa, e->replicas[1].ram + gpa, dwc_page_to_save(e, gpa) };
	int right = right_copy(e, gpa, copies);

	if (right < 0) {
		repaired(e, DWC_COPIES, gpa);
		return 0;
	}
	dwc_set_page_sum(e, gpa, dwc_page_sum(copies[right]));
	for (int i = 0; i < DWC_COPIES; i++)
		if (!same(copies[i], copies[right])) {
			memcpy(copies[i], copies[right], DWC_PAGE);
			repaired(e, i, gpa);
		}
	return 1;
}

/* Scrub a page. Both replicas must be at a committed state. Returns an enum dwc_scrub_result or -errno. Pages in a dirty
 * log are left out: they may differ from the checkpoint, and elements compare them. */
int dwc_scrub_page(struct dwc_engine *e, uint64_t gpa)
{
	const uint8_t *a = e->replicas[0].ram + gpa;
	int err;

	e->stats.scrub_pages++;
	if (same(a, e->replicas[1].ram + gpa) && same(a, dwc_saved_page(e, gpa)))
		return DWC_SCRUB_RIGHT;
	if ((err = dwc_pages_harvest(&e->replicas[0])) || (err = dwc_pages_harvest(&e->replicas[1])))
		return err;
	if (is_logged(e, gpa))
		return DWC_SCRUB_RIGHT;
	dwc_page_repair(e, gpa);
	return DWC_SCRUB_WRONG;
}

/* The next page that is in use; the first one after the last. */
static uint64_t next_page(struct dwc_engine *e)
{
	uint64_t gpa = dwc_next_touched(e, e->scrub.at);

	if (gpa == DWC_NO_PAGE) {
		e->stats.scrub_passes++;
		gpa = dwc_next_touched(e, 0);
	}
	e->scrub.at = gpa + DWC_PAGE;
	return gpa;
}

/* Scrub as many pages as the rate allows since the last call. Returns DWC_STOP_REPAIRED after a page that was wrong. */
int dwc_scrub(struct dwc_engine *e)
{
	enum dwc_activity before;
	uint64_t now = dwc_now_ns(), pages;
	int status = 0;

	if (e->stats.committed == e->scrub.committed) /* a wrong page that is left alone would be found again at once */
		return 0;
	pages = (now - e->scrub.from_ns) * e->config.scrub_bytes_per_s / NS_PER_S / DWC_PAGE;
	if (!pages)
		return 0;
	e->scrub.from_ns += pages * DWC_PAGE * NS_PER_S / e->config.scrub_bytes_per_s;
	if (pages > MOST_PAGES) { /* drop the rest: elements must not wait for it */
		pages = MOST_PAGES;
		e->scrub.from_ns = now;
	}
	before = dwc_enter(&e->replicas[0], DWC_AT_SCRUB);
	e->scrub.committed = e->stats.committed;
	while (pages-- && !status)
		status = dwc_scrub_page(e, next_page(e));
	dwc_leave(&e->replicas[0], before);
	return status == DWC_SCRUB_WRONG ? DWC_STOP_REPAIRED : status;
}
