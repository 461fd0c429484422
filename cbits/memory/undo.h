/* What pages of the checkpoint were before they were written, so that a replay can go back. */
#ifndef DWC_MEMORY_UNDO_H
#define DWC_MEMORY_UNDO_H

#include <stdint.h>

struct dwc_engine;

struct dwc_undo_page {
	uint32_t page; /* gpa / DWC_PAGE */
	uint64_t sum;
	uint8_t *data; /* NULL: zeros */
};

/* Pages as they were at some time, once each: those that were written since. */
struct dwc_undo {
	struct dwc_undo_page *pages;
	uint32_t count, room;
};

/* Where pages are kept now. */
struct dwc_undo_log {
	struct dwc_undo *to; /* NULL: nothing is kept */
	uint32_t *kept_in;   /* for each page: the number under which it was kept last */
	uint32_t number;     /* of `to`; it never comes back, so that kept_in need not be cleared */
	uint64_t bytes;      /* of all that are kept */
	int lost;            /* there was no memory for a page: nothing that was kept is of use */
};

int dwc_undo_begin(struct dwc_engine *e, struct dwc_undo *to);
void dwc_undo_note(struct dwc_engine *e, uint64_t gpa);
int dwc_undo_read(const struct dwc_undo_page *from, uint8_t *to);
int dwc_undo_merge(struct dwc_engine *e, struct dwc_undo *into, struct dwc_undo *later);
void dwc_undo_drop(struct dwc_engine *e, struct dwc_undo *undo);
void dwc_undo_free(struct dwc_engine *e);

#endif
