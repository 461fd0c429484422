/* Which pages of RAM are in use. Host memory is there only for those: a page that was never written in any copy is not looked at, and
 * in the checkpoint is not even read, since the host would map its page of zeros for it, and take another fault when it is written.
 *
 * A page is touched once it was in a dirty log, or the VMM has written it in any copy. It is saved once the checkpoint's copy was
 * written: until then that holds zeros. */
#include "memory/copies.h"

#include <errno.h>
#include <stdlib.h>

#include "engine.h"
#include "host.h"
#include "memory/undo.h"
#include "ram.h"

#define BITS 64

static const uint8_t zeroes[DWC_PAGE] __attribute__((aligned(DWC_PAGE)));

/* The host gives no memory for parts of these arrays that are never written. Returns -ENOMEM or 0. */
int dwc_copies_make(struct dwc_engine *e)
{
	uint64_t words = (dwc_ram_end(e->config.ram_bytes) / DWC_PAGE + BITS - 1) / BITS;

	e->in_use.words = words;
	e->in_use.touched = calloc(words, sizeof *e->in_use.touched);
	e->in_use.saved = calloc(words, sizeof *e->in_use.saved);
	return e->in_use.touched && e->in_use.saved ? 0 : -ENOMEM;
}

void dwc_copies_free(struct dwc_engine *e)
{
	free(e->in_use.touched);
	free(e->in_use.saved);
	e->in_use.touched = e->in_use.saved = NULL;
}

/* The VMM writes to this page, in whichever copy: its slot is asked for its log from now on, and all copies of it are restored. */
void dwc_touch(struct dwc_engine *e, uint64_t gpa)
{
	uint64_t page = gpa / DWC_PAGE;

	e->in_use.touched[page / BITS] |= 1ull << (page % BITS);
	for (int i = 0; i < 2; i++)
		e->replicas[i].slots[dwc_slot_of(gpa)].used = 1;
}

/* The first touched page from this one on; DWC_NO_PAGE after the last. */
uint64_t dwc_next_touched(const struct dwc_engine *e, uint64_t gpa)
{
	uint64_t word = gpa / DWC_PAGE / BITS, bits;

	if (word >= e->in_use.words)
		return DWC_NO_PAGE;
	bits = e->in_use.touched[word] & ~0ull << (gpa / DWC_PAGE % BITS);
	while (!bits && ++word < e->in_use.words)
		bits = e->in_use.touched[word];
	return bits ? (word * BITS + (uint64_t)__builtin_ctzll(bits)) * DWC_PAGE : DWC_NO_PAGE;
}

/* The checkpoint's copy of a page, to be read. */
const uint8_t *dwc_saved_page(const struct dwc_engine *e, uint64_t gpa)
{
	uint64_t page = gpa / DWC_PAGE;

	return e->in_use.saved[page / BITS] >> (page % BITS) & 1 ? e->checkpoint.ram + page * DWC_PAGE : zeroes;
}

/* The same, to be written. */
uint8_t *dwc_page_to_save(struct dwc_engine *e, uint64_t gpa)
{
	uint64_t page = gpa / DWC_PAGE;

	dwc_undo_note(e, gpa);
	e->in_use.saved[page / BITS] |= 1ull << (page % BITS);
	return e->checkpoint.ram + page * DWC_PAGE;
}

/* Fault injection: change a byte of a copy (enum dwc_copy), without a trace in dirty logs and sums. What a fault has hit is in use. */
void dwc_upset_ram(struct dwc_engine *e, int copy, uint64_t gpa, uint8_t value)
{
	uint8_t *page = copy == DWC_COPY_CHECKPOINT ? dwc_page_to_save(e, gpa) : e->replicas[copy].ram + gpa - gpa % DWC_PAGE;

	dwc_touch(e, gpa);
	page[gpa % DWC_PAGE] = value;
}
