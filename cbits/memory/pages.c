/* Memory: which pages a run wrote, whether both runs wrote the same, commit and rollback.
 *
 * A page that was written stays writable and in the dirty log (it is hot), and so is compared each
 * time memory is: a write-protect fault costs far more than comparing a page. It becomes cold when
 * its content has not changed for idle_limit checkpoints. Contents are compared, over the union of both
 * logs; the logs themselves may differ: page walks alone log page-table pages (SDM 3C 29.3.5). */
#include "memory/pages.h"

#include <linux/kvm.h>
#include <string.h>

#include "assertion.h"
#include "engine.h"
#include "host.h"
#include "memory/difference.h"
#include "memory/guard.h"
#include "replica/replica.h"
#include "status.h"

#define BATCH_PAGES 16 /* a CLEAR flushes the TLB, so wait for several cold pages */
#define SHARED_PAGES 8 /* comparing fewer is faster than handing half of them to the other thread */

int dwc_pages_harvest(struct dwc_replica *r)
{
	/* in place there is one VM with one log, which still has the pages of e1 */
	if (r->index && r->engine->vms == 1)
		return 0;
	for (int i = 0; i < r->engine->nslots; i++) {
		enum dwc_activity before = dwc_enter(r, DWC_AT_DIRTY_LOG);
		struct kvm_dirty_log log;
		long err;

		memset(&log, 0, sizeof log);
		log.slot = (uint32_t)i;
		log.dirty_bitmap = r->slots[i].dirty;
		err = dwc_ioctl(r->vm_fd, KVM_GET_DIRTY_LOG, &log);
		dwc_leave(r, before);
		if (err < 0)
			return (int)err;
	}
	if (r->stage == DWC_STAGE_RAN)
		r->stage = DWC_STAGE_HARVESTED;
	return 0;
}

static uint64_t words(const struct dwc_slot *s)
{
	return (s->size / DWC_PAGE + 63) / 64;
}

/* Loop over the pages in either replica's dirty log; gpa is bound in the body. */
#define FOR_EACH_DIRTY(e, slot, gpa)                                                                    \
	for (int slot = 0; slot < (e)->nslots; slot++)                                                  \
		for (uint64_t word_ = 0, bits_; word_ < words(&(e)->replicas[0].slots[slot]); word_++)  \
			for (bits_ = (e)->replicas[0].slots[slot].dirty[word_] |                        \
				     (e)->replicas[1].slots[slot].dirty[word_];                         \
			     bits_; bits_ &= bits_ - 1)                                                 \
				for (uint64_t gpa = (e)->replicas[0].slots[slot].gpa +                  \
						    (word_ * 64 + (uint64_t)__builtin_ctzll(bits_)) *   \
							    DWC_PAGE,                                   \
					      once_ = 1;                                                \
				     once_; once_ = 0)

static void forget_cold(struct dwc_engine *e)
{
	for (int i = 0; e->dirty.cold_count && i < e->nslots; i++)
		memset(e->replicas[0].slots[i].cold, 0, words(&e->replicas[0].slots[i]) * 8);
	e->dirty.cold_count = 0;
}

static void set_cold(struct dwc_engine *e, uint32_t page)
{
	for (int i = 0; i < e->nslots; i++) {
		const struct dwc_slot *s = &e->replicas[0].slots[i];
		uint64_t at = page - s->gpa / DWC_PAGE;

		if (at < s->size / DWC_PAGE)
			s->cold[at / 64] |= 1ull << (at % 64);
	}
	e->dirty.cold_count++;
}

static void age(struct dwc_engine *e, uint32_t page, int changed)
{
	uint8_t *idle = &e->dirty.idle[page];

	if (changed) {
		e->dirty.changed[e->dirty.changed_count++] = page;
		*idle = 0;
	} else if (*idle < UINT8_MAX) {
		++*idle;
	}
	if (*idle >= e->config.idle_limit)
		set_cold(e, page);
}

/* List the pages in either log. */
void dwc_pages_list(struct dwc_engine *e)
{
	e->dirty.count = 0;
	FOR_EACH_DIRTY(e, slot, gpa) {
		DWC_ASSERT(e, gpa < e->config.ram_bytes);
		e->dirty.pages[e->dirty.count++].page = (uint32_t)(gpa / DWC_PAGE);
	}
}

/* Compare dirty pages `from` to `to` (not included); at a checkpoint with the checkpoint's copy, too. */
static void compare_share(struct dwc_engine *e, uint32_t from, uint32_t to)
{
	const uint8_t *a = e->replicas[0].ram, *b = e->replicas[1].ram;

	for (uint32_t i = from; i < to; i++) {
		uint64_t gpa = (uint64_t)e->dirty.pages[i].page * DWC_PAGE;

		e->dirty.pages[i].differs = dwc_difference(a + gpa, b + gpa) != 0;
		e->dirty.pages[i].changed = e->dirty.compare_all && dwc_difference(a + gpa, e->checkpoint.ram + gpa);
	}
}

static int job_compare_second_half(struct dwc_replica *r)
{
	compare_share(r->engine, r->engine->dirty.count / 2, r->engine->dirty.count);
	return 0;
}

/* Compare the pages in both logs. Replica B's thread does half of them if it waits on a CPU of its own. At a checkpoint,
 * note the changed and the cold pages for the commit. No page leaves the logs between checkpoints, so they name all pages
 * that a rollback must restore. */
uint32_t dwc_pages_compare(struct dwc_engine *e, int at_checkpoint)
{
	e->divergence.page_count = e->dirty.changed_count = 0;
	forget_cold(e);
	dwc_pages_list(e);
	e->dirty.compare_all = at_checkpoint;
	if (e->config.strategy == DWC_PARALLEL && e->config.spin_turns && e->dirty.count >= SHARED_PAGES) {
		dwc_replica_post(&e->replicas[1], job_compare_second_half);
		compare_share(e, 0, e->dirty.count / 2);
		dwc_replica_wait(&e->replicas[1]);
	} else {
		compare_share(e, 0, e->dirty.count);
	}
	for (uint32_t i = 0; i < e->dirty.count; i++) {
		const struct dwc_dirty *d = &e->dirty.pages[i];

		if (at_checkpoint)
			age(e, d->page, d->changed);
		if (d->differs) {
			if (e->divergence.page_count < DWC_MAX_DIFFS)
				e->divergence.gpa[e->divergence.page_count] = (uint64_t)d->page * DWC_PAGE;
			e->divergence.page_count++;
		}
	}
	e->stats.pages_compared += e->dirty.count;
	if (e->dirty.count > e->stats.pages_hot_max)
		e->stats.pages_hot_max = e->dirty.count;
	return e->divergence.page_count ? DWC_DIFF_MEMORY : 0;
}

static int clear_cold(struct dwc_engine *e)
{
	for (int replica = 0; replica < e->vms; replica++)
		for (int i = 0; i < e->nslots; i++) {
			struct dwc_slot *s = &e->replicas[0].slots[i];
			uint64_t first = 0, last = words(s), pages = s->size / DWC_PAGE;
			struct kvm_clear_dirty_log log;
			enum dwc_activity before;
			long err;

			while (first < last && !s->cold[first])
				first++;
			while (last > first && !s->cold[last - 1])
				last--;
			if (first == last)
				continue;
			memset(&log, 0, sizeof log);
			log.slot = (uint32_t)i;
			log.first_page = first * 64;
			log.num_pages = (uint32_t)((last * 64 < pages ? last * 64 : pages) - first * 64);
			log.dirty_bitmap = s->cold + first;
			before = dwc_enter(&e->replicas[0], DWC_AT_DIRTY_LOG);
			err = dwc_ioctl(e->replicas[replica].vm_fd, KVM_CLEAR_DIRTY_LOG, &log);
			dwc_leave(&e->replicas[0], before);
			if (err < 0)
				return (int)err;
		}
	return 0;
}

/* After a comparison without a difference: bring the checkpoint up to date. */
int dwc_pages_commit(struct dwc_engine *e)
{
	const uint8_t *a = e->replicas[0].ram, *b = e->replicas[1].ram;
	int err;

	/* a bit that flips between the comparison and the sums makes the two sums differ; one that flips on its way into
	 * the checkpoint does not fit the sum */
	for (uint32_t i = 0; i < e->dirty.changed_count; i++) {
		uint64_t gpa = (uint64_t)e->dirty.changed[i] * DWC_PAGE;

		e->checkpoint.new_sums[i] = dwc_page_sum(a + gpa);
		if (e->checkpoint.new_sums[i] != dwc_page_sum(b + gpa)) {
			e->divergence.groups = DWC_DIFF_MEMORY;
			e->divergence.gpa[0] = gpa;
			e->divergence.page_count = 1;
			return DWC_COMMIT_DIVERGED;
		}
	}
	for (uint32_t i = 0; i < e->dirty.changed_count; i++) {
		uint64_t gpa = (uint64_t)e->dirty.changed[i] * DWC_PAGE;

		memcpy(e->checkpoint.ram + gpa, a + gpa, DWC_PAGE);
		e->checkpoint.sums[e->dirty.changed[i]] = e->checkpoint.new_sums[i];
	}
	e->stats.pages_copied += e->dirty.changed_count;
	if (e->dirty.cold_count < BATCH_PAGES)
		return 0;
	err = clear_cold(e);
	FOR_EACH_DIRTY(e, slot, gpa)
		if (e->dirty.idle[gpa / DWC_PAGE] >= e->config.idle_limit)
			e->dirty.idle[gpa / DWC_PAGE] = 0;
	return err;
}

static int restore_page(struct dwc_engine *e, uint64_t gpa)
{
	int status = dwc_guard_page(e, gpa);

	for (int i = 0; !status && i < 2; i++)
		if (memcmp(e->replicas[i].ram + gpa, e->checkpoint.ram + gpa, DWC_PAGE))
			memcpy(e->replicas[i].ram + gpa, e->checkpoint.ram + gpa, DWC_PAGE);
	return status;
}

/* all: restore every page, in case a fault has hit one that no log names. */
int dwc_pages_rollback(struct dwc_engine *e, int all)
{
	int err;

	if ((err = dwc_pages_harvest(&e->replicas[0])) || (err = dwc_pages_harvest(&e->replicas[1])))
		return err;
	if (!all) {
		FOR_EACH_DIRTY(e, slot, gpa)
			if ((err = restore_page(e, gpa)))
				return err;
		return 0;
	}
	for (int i = 0; i < e->nslots; i++) {
		struct dwc_slot *s = &e->replicas[0].slots[i];

		for (uint64_t gpa = s->gpa; gpa < s->gpa + s->size; gpa += DWC_PAGE)
			if ((err = restore_page(e, gpa)))
				return err;
	}
	return 0;
}

/* Delete and add the memslots. Under shadow paging only this makes KVM drop the shadow of a page table
 * that was rewritten through the mapping of guest RAM. */
int dwc_pages_readd_slots(struct dwc_engine *e)
{
	for (int replica = 0; replica < 2; replica++)
		for (int i = 0; i < e->nslots; i++) {
			struct dwc_replica *r = &e->replicas[replica];
			struct kvm_userspace_memory_region region;
			long err;

			memset(&region, 0, sizeof region);
			region.slot = (uint32_t)i;
			region.flags = KVM_MEM_LOG_DIRTY_PAGES;
			region.guest_phys_addr = r->slots[i].gpa;
			region.userspace_addr = (uint64_t)(uintptr_t)(r->ram + r->slots[i].gpa);
			if ((err = dwc_ioctl(r->vm_fd, KVM_SET_USER_MEMORY_REGION, &region)) < 0)
				return (int)err;
			region.memory_size = r->slots[i].size;
			if ((err = dwc_ioctl(r->vm_fd, KVM_SET_USER_MEMORY_REGION, &region)) < 0)
				return (int)err;
		}
	return 0;
}
