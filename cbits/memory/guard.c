/* Protects the checkpoint itself: sums of its pages, registers and log, made from compared data, and checked before a
 * rollback uses them. With three copies of RAM and a sum, a damaged page can be repaired. */
#include "memory/guard.h"

#include <stddef.h>
#include <string.h>

#include "assertion.h"
#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "replica/inputs.h"
#include "status.h"
#include "sum.h"
#include "vcpu/exit.h"

static uint64_t exit_sum(uint64_t sum, const struct dwc_exit *x)
{
	return dwc_sum(sum, x, offsetof(struct dwc_exit, data) + dwc_exit_length(x));
}

uint64_t dwc_checkpoint_sum(const struct dwc_engine *e)
{
	return exit_sum(dwc_sum(1, &e->checkpoint.state, sizeof e->checkpoint.state), &e->checkpoint.exit);
}

/* The answer belongs to the exit before, which says how long it is. */
uint64_t dwc_logged_sum(const struct dwc_logged *l, const struct dwc_exit *before)
{
	uint64_t sum = dwc_sum(1, &l->inputs, offsetof(struct dwc_inputs, io_data) + dwc_exit_length(before));

	sum = dwc_sum(sum, &l->inner, offsetof(struct dwc_inner_log, pc));
	if (l->inner.count)
		sum = dwc_sum(sum, &l->inner.pc, dwc_pc_bytes(&l->inner.pc));
	return exit_sum(sum, &l->exit);
}

/* Check the checkpoint's registers and the log before they are used. There is only one copy of them. */
int dwc_guard_log(const struct dwc_engine *e)
{
	const struct dwc_exit *before = &e->checkpoint.exit;

	if (dwc_checkpoint_sum(e) != e->checkpoint.sum)
		return DWC_ROLLBACK_DAMAGED;
	DWC_ASSERT(e, e->log.count <= DWC_LOG_ELEMENTS);
	for (uint32_t i = 0; i < e->log.count; i++) {
		if (dwc_logged_sum(&e->log.entries[i], before) != e->log.entries[i].sum)
			return DWC_ROLLBACK_DAMAGED;
		before = &e->log.entries[i].exit;
	}
	return 0;
}

/* What a page adds to the sum of all of RAM, in which its place counts. A page of zeros adds nothing. */
static uint64_t share(uint64_t gpa, uint64_t sum)
{
	return sum ? dwc_sum(gpa, &sum, sizeof sum) : 0;
}

/* Set the sum of a page of the checkpoint, and with it that of all its pages. */
void dwc_set_page_sum(struct dwc_engine *e, uint64_t gpa, uint64_t sum)
{
	uint64_t *of_page = &e->checkpoint.sums[gpa / DWC_PAGE];

	gpa -= gpa % DWC_PAGE;
	e->checkpoint.content += share(gpa, sum) - share(gpa, *of_page);
	*of_page = sum;
}

/* What the sum of all pages becomes if those that were found changed are committed as they are in replica A. */
uint64_t dwc_content_to_be(const struct dwc_engine *e)
{
	uint64_t content = e->checkpoint.content;

	for (uint32_t i = 0; i < e->dirty.changed_count; i++) {
		uint64_t gpa = (uint64_t)e->dirty.changed[i] * DWC_PAGE;

		content += share(gpa, dwc_page_sum(e->replicas[0].ram + gpa)) - share(gpa, e->checkpoint.sums[e->dirty.changed[i]]);
	}
	return content;
}

/* Check a page of the checkpoint before it is used. If damaged it is repaired from a replica that has not changed it since. */
int dwc_guard_page(struct dwc_engine *e, uint64_t gpa)
{
	uint64_t sum = e->checkpoint.sums[gpa / DWC_PAGE];

	if (dwc_page_sum(dwc_saved_page(e, gpa)) == sum)
		return 0;
	for (int i = 0; i < 2; i++)
		if (dwc_page_sum(e->replicas[i].ram + gpa) == sum) {
			memcpy(dwc_page_to_save(e, gpa), e->replicas[i].ram + gpa, DWC_PAGE);
			e->stats.checkpoint_repairs++;
			return 0;
		}
	return DWC_ROLLBACK_DAMAGED;
}
