/* The checkpoint's memory as it was at one time, while the guest goes on: so a machine is saved without standing. What a page was is kept
 * before it is written for the first time since; the others are as they were. */
#include "memory/kept.h"

#include "assertion.h"
#include "engine.h"
#include "memory/undo.h"

/* Keep memory as it is now. Nothing else may be kept: a replay, which goes back, is not saved. Returns -ENOMEM or 0. */
int dwc_kept_begin(struct dwc_engine *e)
{
	DWC_ASSERT(e, !e->undo.to);
	return dwc_undo_begin(e, &e->kept);
}

/* Copy a page that was kept, by its place in e->kept. Returns DWC_ROLLBACK_DAMAGED if that is not what it was, or 0. */
int dwc_kept_read(const struct dwc_engine *e, uint32_t index, uint8_t *to)
{
	return dwc_undo_read(&e->kept.pages[index], to);
}

void dwc_kept_end(struct dwc_engine *e)
{
	if (e->undo.to == &e->kept)
		e->undo.to = NULL;
	dwc_undo_drop(e, &e->kept);
	e->undo.lost = 0;
}
