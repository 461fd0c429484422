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
#include "vcpu/exit.h"

#define LANES 4
#define WORDS (DWC_PAGE / sizeof(uint64_t))

static const uint64_t odd = 0x9e3779b97f4a7c15ull;

/* For a given word a step maps sums one to one, and for a given sum it maps words one to one: so one changed word always shows. */
static inline uint64_t mix(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * odd;
	return sum ^ sum >> 29;
}

/* That of a page of zeros is 0. */
uint64_t dwc_page_sum(const uint8_t *page)
{
	const uint64_t *w = (const uint64_t *)page;
	uint64_t lane[LANES] = { 0 }, sum = 0;

	for (unsigned i = 0; i < WORDS; i += LANES)
		for (unsigned j = 0; j < LANES; j++)
			lane[j] = mix(lane[j], w[i + j]);
	for (unsigned j = 0; j < LANES; j++)
		sum = mix(sum, lane[j]);
	return sum;
}

static uint64_t bytes_sum(uint64_t sum, const void *data, size_t length)
{
	const uint8_t *p = data;
	uint64_t word;

	for (; length >= sizeof word; p += sizeof word, length -= sizeof word) {
		memcpy(&word, p, sizeof word);
		sum = mix(sum, word);
	}
	word = 0;
	memcpy(&word, p, length);
	return mix(sum, word);
}

static uint64_t exit_sum(uint64_t sum, const struct dwc_exit *x)
{
	return bytes_sum(sum, x, offsetof(struct dwc_exit, data) + dwc_exit_length(x));
}

uint64_t dwc_checkpoint_sum(const struct dwc_engine *e)
{
	return exit_sum(bytes_sum(1, &e->checkpoint.state, sizeof e->checkpoint.state), &e->checkpoint.exit);
}

/* The answer belongs to the exit before, which says how long it is. */
uint64_t dwc_logged_sum(const struct dwc_logged *l, const struct dwc_exit *before)
{
	return exit_sum(bytes_sum(1, &l->inputs, offsetof(struct dwc_inputs, io_data) + dwc_exit_length(before)), &l->exit);
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

/* Check a page of the checkpoint before it is copied back. If damaged it is repaired from a replica that has not changed it since. */
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
