/* What pages of the checkpoint were before they were written, so that a replay can go back. A page is kept before it is written for the
 * first time since a snapshot; all writes to the checkpoint's pages ask dwc_page_to_save() first, which tells of them. */
#include "memory/undo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "ram.h"
#include "status.h"
#include "sum.h"

#define FIRST_ROOM 64u
#define BITS 64

static uint64_t page_numbers(const struct dwc_engine *e)
{
	return dwc_ram_end(e->config.ram_bytes) / DWC_PAGE;
}

/* Keep pages in `to`, which is empty, from now on. Returns -ENOMEM or 0. */
int dwc_undo_begin(struct dwc_engine *e, struct dwc_undo *to)
{
	struct dwc_undo_log *log = &e->undo;

	if (!log->kept_in && !(log->kept_in = calloc(page_numbers(e), sizeof *log->kept_in)))
		return -ENOMEM;
	log->to = to;
	log->number++;
	return 0;
}

static int make_room(struct dwc_undo *undo)
{
	uint32_t room = undo->room ? undo->room * 2 : FIRST_ROOM;
	struct dwc_undo_page *more;

	if (undo->count < undo->room)
		return 0;
	if (!(more = realloc(undo->pages, room * sizeof *more)))
		return -ENOMEM;
	undo->pages = more;
	undo->room = room;
	return 0;
}

static uint64_t bytes_of(const struct dwc_undo_page *page)
{
	return sizeof *page + (page->data ? DWC_PAGE : 0);
}

static int is_saved(const struct dwc_engine *e, uint32_t page)
{
	return e->in_use.saved[page / BITS] >> (page % BITS) & 1;
}

static int keep(struct dwc_engine *e, uint32_t page)
{
	struct dwc_undo *to = e->undo.to;
	struct dwc_undo_page *at;

	if (make_room(to))
		return -ENOMEM;
	at = &to->pages[to->count];
	*at = (struct dwc_undo_page){ .page = page, .sum = e->checkpoint.sums[page] };
	if (is_saved(e, page)) {
		if (!(at->data = malloc(DWC_PAGE)))
			return -ENOMEM;
		memcpy(at->data, e->checkpoint.ram + (uint64_t)page * DWC_PAGE, DWC_PAGE);
	}
	to->count++;
	e->undo.bytes += bytes_of(at);
	return 0;
}

/* A page of the checkpoint is about to be written. */
void dwc_undo_note(struct dwc_engine *e, uint64_t gpa)
{
	struct dwc_undo_log *log = &e->undo;
	uint32_t page = (uint32_t)(gpa / DWC_PAGE);

	if (!log->to || log->kept_in[page] == log->number)
		return;
	log->kept_in[page] = log->number;
	if (keep(e, page))
		log->lost = 1;
}

/* Copy a page as it was. Returns DWC_ROLLBACK_DAMAGED if that is not what was kept, or 0. */
int dwc_undo_read(const struct dwc_undo_page *from, uint8_t *to)
{
	if (from->data)
		memcpy(to, from->data, DWC_PAGE);
	else
		memset(to, 0, DWC_PAGE);
	return dwc_page_sum(to) == from->sum ? 0 : DWC_ROLLBACK_DAMAGED;
}

static void forget(struct dwc_engine *e, struct dwc_undo_page *page)
{
	e->undo.bytes -= bytes_of(page);
	free(page->data);
}

/* One snapshot less: pages that were kept later go to the earlier ones, unless they are among them. Neither may be those that are kept in
 * now. Returns -ENOMEM, with nothing lost that is in use, or 0. */
int dwc_undo_merge(struct dwc_engine *e, struct dwc_undo *into, struct dwc_undo *later)
{
	uint64_t *among = calloc((page_numbers(e) + BITS - 1) / BITS, sizeof *among);

	if (!among)
		return -ENOMEM;
	for (uint32_t i = 0; i < into->count; i++)
		among[into->pages[i].page / BITS] |= 1ull << (into->pages[i].page % BITS);
	for (; later->count; later->count--) {
		struct dwc_undo_page *page = &later->pages[later->count - 1];

		if (among[page->page / BITS] >> (page->page % BITS) & 1) {
			forget(e, page);
		} else if (!make_room(into)) {
			into->pages[into->count++] = *page;
		} else {
			free(among);
			return -ENOMEM;
		}
	}
	free(among);
	dwc_undo_drop(e, later);
	return 0;
}

void dwc_undo_drop(struct dwc_engine *e, struct dwc_undo *undo)
{
	for (uint32_t i = 0; i < undo->count; i++)
		forget(e, &undo->pages[i]);
	free(undo->pages);
	*undo = (struct dwc_undo){ 0 };
}

void dwc_undo_free(struct dwc_engine *e)
{
	free(e->undo.kept_in);
	e->undo = (struct dwc_undo_log){ 0 };
}
