/* Memory: which pages a run wrote, whether both runs wrote the same, commit and rollback.
 *
 * A page that was written stays writable and in the dirty log (it is hot), and so is compared each
 * time memory is: a write-protect fault costs far more than comparing a page. It becomes cold when
 * its content has not changed for some checkpoints. Contents are compared, over the union of both
 * logs; the logs themselves may differ: page walks alone log page-table pages (SDM 3C 29.3.5). */
#include "memory/pages.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>

#include "assertion.h"
#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "memory/difference.h"
#include "memory/guard.h"
#include "ram.h"
#include "replica/replica.h"
#include "status.h"
#include "sum.h"

#define BATCH_PAGES 16 /* a CLEAR flushes the TLB, so wait for several cold pages */
#define SHARED_PAGES 8 /* comparing fewer is faster than handing half of them to the other thread */

/* Whether the thread that owns the vCPU has taken a page fault since the last call. RAM is not there before it is used (and no part of
 * it is in huge pages), so the first write to a page is one, also if KVM makes it. Another thread cannot tell. */
static int has_faulted(struct dwc_replica *r)
{
	long before = r->faults;
	struct rusage usage;

	if ((r->has_thread && !pthread_equal(r->thread, pthread_self())) || getrusage(RUSAGE_THREAD, &usage))
		return 1;
	r->faults = usage.ru_minflt + usage.ru_majflt;
	return r->faults != before;
}

static uint64_t words(const struct dwc_slot *s)
{
	return (s->size / DWC_PAGE + 63) / 64;
}

static int is_empty(const struct dwc_slot *s)
{
	uint64_t any = 0;

	for (uint64_t i = 0; i < words(s); i++)
		any |= s->dirty[i];
	return !any;
}

static int read_log(struct dwc_replica *r, int slot)
{
	struct dwc_slot *s = &r->slots[slot];
	enum dwc_activity before = dwc_enter(r, DWC_AT_DIRTY_LOG);
	struct kvm_dirty_log log;
	long err;

	memset(&log, 0, sizeof log);
	log.slot = (uint32_t)slot;
	log.dirty_bitmap = s->dirty;
	err = dwc_ioctl(r->vm_fd, KVM_GET_DIRTY_LOG, &log);
	dwc_leave(r, before);
	if (err < 0)
		return (int)err;
	s->used = s->used || !is_empty(s);
	return 0;
}

/* Read the dirty logs of the slots that are in use, and those of the others if one of them may have come into use. */
int dwc_pages_harvest(struct dwc_replica *r)
{
	int err, unused = 0;

	/* in place there is one VM with one log, which still has the pages of e1 */
	if (r->index && r->engine->vms == 1)
		return 0;
	for (int i = 0; i < r->engine->nslots; i++)
		if (!r->slots[i].used)
			unused = 1;
		else if ((err = read_log(r, i)))
			return err;
	if (unused && has_faulted(r))
		for (int i = 0; i < r->engine->nslots; i++)
			if (!r->slots[i].used && (err = read_log(r, i)))
				return err;
	if (r->stage == DWC_STAGE_RAN)
		r->stage = DWC_STAGE_HARVESTED;
	return 0;
}

/* How many checkpoints a page stays hot for without a change. Most pages of a guest that fills memory are not written again soon, while
 * one that was written again each time will be: its limit is doubled, up to where comparing it costs as much as a fault. */
static uint32_t idle_limit(const struct dwc_engine *e, uint32_t page)
{
	uint32_t limit = e->config.idle_limit << e->dirty.returns[page];

	return limit < e->config.idle_most ? limit : e->config.idle_most;
}

static void age(struct dwc_engine *e, uint32_t page, int changed)
{
	uint8_t *idle = &e->dirty.idle[page];

	if (*idle == DWC_COLD) {
		*idle = 0;
		e->dirty.returns[page] += e->dirty.returns[page] < DWC_MOST_RETURNS;
	}
	if (changed) {
		e->dirty.changed[e->dirty.changed_count++] = page;
		*idle = 0;
	} else if (*idle < DWC_MOST_IDLE) {
		++*idle;
	}
	if (*idle >= idle_limit(e, page))
		e->dirty.cold[e->dirty.cold_count++] = page;
}

static void list_slot(struct dwc_engine *e, int slot)
{
	const struct dwc_slot *a = &e->replicas[0].slots[slot], *b = &e->replicas[1].slots[slot];
	uint32_t first = (uint32_t)(a->gpa / DWC_PAGE);

	for (uint64_t word = 0; word < words(a); word++) {
		uint64_t bits = a->dirty[word] | b->dirty[word];

		if (bits)
			e->in_use.touched[first / 64 + word] |= bits;
		for (; bits; bits &= bits - 1)
			e->dirty.pages[e->dirty.count++].page = first + (uint32_t)(word * 64) + (uint32_t)__builtin_ctzll(bits);
	}
}

/* List the pages in either log. */
void dwc_pages_list(struct dwc_engine *e)
{
	e->dirty.count = 0;
	for (int i = 0; i < e->nslots; i++)
		if (e->replicas[0].slots[i].used || e->replicas[1].slots[i].used)
			list_slot(e, i);
	DWC_ASSERT(e, e->dirty.count <= e->config.ram_bytes / DWC_PAGE);
}

/* Compare dirty pages `from` to `to` (not included); at a checkpoint with the checkpoint's copy, too. */
static void compare_share(struct dwc_engine *e, uint32_t from, uint32_t to)
{
	const uint8_t *a = e->replicas[0].ram, *b = e->replicas[1].ram;

	for (uint32_t i = from; i < to; i++) {
		uint64_t gpa = (uint64_t)e->dirty.pages[i].page * DWC_PAGE;

		e->dirty.pages[i].differs = dwc_difference(a + gpa, b + gpa) != 0;
		e->dirty.pages[i].changed = e->dirty.compare_all && dwc_difference(a + gpa, dwc_saved_page(e, gpa));
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
	e->divergence.page_count = e->dirty.changed_count = e->dirty.cold_count = 0;
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

/* Write-protect pages of one slot, `count` of the cold ones. */
static int clear_in_slot(struct dwc_engine *e, const uint32_t *page, uint32_t count)
{
	int slot = dwc_slot_of((uint64_t)page[0] * DWC_PAGE);
	const struct dwc_slot *s = &e->replicas[0].slots[slot];
	uint64_t start = s->gpa / DWC_PAGE, first = (page[0] - start) / 64 * 64, last = (page[count - 1] - start) / 64 * 64 + 64;
	struct kvm_clear_dirty_log log;
	enum dwc_activity before;
	long err = 0;

	for (uint32_t i = 0; i < count; i++)
		e->dirty.clear[(page[i] - start) / 64] |= 1ull << ((page[i] - start) % 64);
	memset(&log, 0, sizeof log);
	log.slot = (uint32_t)slot;
	log.first_page = first;
	log.num_pages = (uint32_t)((last < s->size / DWC_PAGE ? last : s->size / DWC_PAGE) - first);
	log.dirty_bitmap = e->dirty.clear + first / 64;
	before = dwc_enter(&e->replicas[0], DWC_AT_DIRTY_LOG);
	for (int replica = 0; replica < e->vms && err >= 0; replica++)
		err = dwc_ioctl(e->replicas[replica].vm_fd, KVM_CLEAR_DIRTY_LOG, &log);
	dwc_leave(&e->replicas[0], before);
	for (uint32_t i = 0; i < count; i++)
		e->dirty.clear[(page[i] - start) / 64] = 0;
	return err < 0 ? (int)err : 0;
}

static int clear_cold(struct dwc_engine *e)
{
	const uint32_t *cold = e->dirty.cold;
	int err = 0;

	for (uint32_t from = 0, to; !err && from < e->dirty.cold_count; from = to) {
		to = from + 1;
		while (to < e->dirty.cold_count &&
		       dwc_slot_of((uint64_t)cold[to] * DWC_PAGE) == dwc_slot_of((uint64_t)cold[from] * DWC_PAGE))
			to++;
		err = clear_in_slot(e, cold + from, to - from);
	}
	for (uint32_t i = 0; i < e->dirty.cold_count; i++)
		e->dirty.idle[cold[i]] = DWC_COLD;
	return err;
}

/* After a comparison without a difference: bring the checkpoint up to date. */
int dwc_pages_commit(struct dwc_engine *e)
{
	const uint8_t *a = e->replicas[0].ram, *b = e->replicas[1].ram;

	/* compare once more, after the sum: a bit that has flipped since the comparison makes them differ; one that flips on its way
	 * into the checkpoint does not fit the sum */
	for (uint32_t i = 0; i < e->dirty.changed_count; i++) {
		uint64_t gpa = (uint64_t)e->dirty.changed[i] * DWC_PAGE;

		e->checkpoint.new_sums[i] = dwc_page_sum(a + gpa);
		if (dwc_difference(a + gpa, b + gpa)) {
			e->divergence.groups = DWC_DIFF_MEMORY;
			e->divergence.gpa[0] = gpa;
			e->divergence.page_count = 1;
			return DWC_COMMIT_DIVERGED;
		}
	}
	for (uint32_t i = 0; i < e->dirty.changed_count; i++) {
		uint64_t gpa = (uint64_t)e->dirty.changed[i] * DWC_PAGE;

		memcpy(dwc_page_to_save(e, gpa), a + gpa, DWC_PAGE);
		dwc_set_page_sum(e, gpa, e->checkpoint.new_sums[i]);
	}
	e->stats.pages_copied += e->dirty.changed_count;
	return e->dirty.cold_count < BATCH_PAGES ? 0 : clear_cold(e);
}

static int restore_page(struct dwc_engine *e, uint64_t gpa)
{
	int status = dwc_guard_page(e, gpa);
	const uint8_t *saved = dwc_saved_page(e, gpa);

	for (int i = 0; !status && i < 2; i++)
		if (memcmp(e->replicas[i].ram + gpa, saved, DWC_PAGE))
			memcpy(e->replicas[i].ram + gpa, saved, DWC_PAGE);
	return status;
}

/* all: restore every page that is in use, in case a fault has hit one that no log names. */
int dwc_pages_rollback(struct dwc_engine *e, int all)
{
	int err;

	if ((err = dwc_pages_harvest(&e->replicas[0])) || (err = dwc_pages_harvest(&e->replicas[1])))
		return err;
	dwc_pages_list(e);
	for (uint32_t i = 0; !all && i < e->dirty.count; i++)
		if ((err = restore_page(e, (uint64_t)e->dirty.pages[i].page * DWC_PAGE)))
			return err;
	for (uint64_t gpa = all ? 0 : DWC_NO_PAGE; (gpa = dwc_next_touched(e, gpa)) != DWC_NO_PAGE; gpa += DWC_PAGE)
		if ((err = restore_page(e, gpa)))
			return err;
	return 0;
}

static int set_slot(const struct dwc_replica *r, int slot, uint64_t size)
{
	struct kvm_userspace_memory_region region;

	memset(&region, 0, sizeof region);
	region.slot = (uint32_t)slot;
	region.flags = KVM_MEM_LOG_DIRTY_PAGES;
	region.guest_phys_addr = r->slots[slot].gpa;
	region.memory_size = size;
	region.userspace_addr = (uint64_t)(uintptr_t)(r->ram + r->slots[slot].gpa);
	return (int)dwc_ioctl(r->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Delete and add a memslot, whichever: KVM then drops all shadow pages of the VM (kvm_mmu_zap_all_fast). Under shadow paging only this
 * makes it drop the shadow of a page table that was rewritten through the mapping of guest RAM. The slot's log is empty after it. */
int dwc_pages_readd_slot(struct dwc_engine *e)
{
	int err;

	for (int i = 0; i < 2; i++)
		if ((err = set_slot(&e->replicas[i], 0, 0)) < 0 || (err = set_slot(&e->replicas[i], 0, e->replicas[i].slots[0].size)) < 0)
			return err;
	return 0;
}
