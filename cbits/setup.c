/* An engine's life: it is made from what Python passes (VMs, RAM, what the host can do), started when a guest has been loaded into
 * replica A, stopped, and freed. */
#include "setup.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "element/caches.h"
#include "element/past.h"
#include "element/strategy.h"
#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "memory/difference.h"
#include "memory/guard.h"
#include "memory/kept.h"
#include "memory/pages.h"
#include "ram.h"
#include "record/record.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sites/sites.h"
#include "vcpu/state.h"

#define FIRST_MARGIN_US 16
#define FIRST_STRETCH 4

static int are_vms_there(const struct dwc_config *c, int replicas)
{
	for (int i = 0; i < replicas; i++)
		if (c->vms[i].vm_fd <= 0 || c->vms[i].vcpu_fd <= 0 || !c->vms[i].run || !c->vms[i].ram)
			return 0;
	return 1;
}

/* Check for bugs of the caller; requests of users have been checked before. */
static int is_sound(const struct dwc_config *c)
{
	const struct dwc_strategy_ops *ops = dwc_strategy_ops(c->strategy);
	int replicas;

	if (!ops)
		return 0;
	replicas = ops->protects ? 2 : 1;
	return are_vms_there(c, replicas) && c->ram_bytes && c->ram_bytes <= DWC_MOST_RAM && !(c->ram_bytes % DWC_PAGE) && !ops->protects == !c->checkpoint_ram &&
	       c->checkpoint_every >= 1 && c->checkpoint_every <= DWC_LOG_ELEMENTS && (!ops->make_ready || c->checkpoint_every == 1) &&
	       (!c->counting || ops->vms == 2 || c->strategy == DWC_REPLAY) && (!c->scrub_bytes_per_s || ops->vms == 2) && c->clock_divisor && c->slice_ns &&
	       c->idle_limit && c->idle_limit <= c->idle_most && c->idle_most <= DWC_MOST_IDLE && c->msr_count <= DWC_MAX_MSRS &&
	       c->tsc_bits < 64 && (unsigned)c->tlb_flush <= DWC_TLB_FLUSH_MEMSLOT &&
	       (unsigned)c->user_trap <= DWC_USER_TRAP_SYSENTER && (unsigned)c->cache_flush <= DWC_CACHE_ALL &&
	       (c->cache_flush == DWC_CACHE_KEPT || ops->make_ready) && (c->cache_flush != DWC_CACHE_ALL || (c->evict && c->evict_bytes));
}

static int make_slots(struct dwc_replica *r, int count)
{
	for (int i = 0; i < count; i++) {
		struct dwc_slot *slot = &r->slots[i];

		dwc_ram_slot(r->engine->config.ram_bytes, i, &slot->gpa, &slot->size);
		if (!(slot->dirty = calloc(slot->size / DWC_PAGE / 64 + 1, sizeof *slot->dirty)))
			return -ENOMEM;
	}
	return 0;
}

static int make_replica(struct dwc_engine *e, int index)
{
	const struct dwc_vm *vm = &e->config.vms[index];
	struct dwc_replica *r = &e->replicas[index];

	r->engine = e;
	r->index = index;
	r->vm_fd = vm->vm_fd;
	r->vcpu_fd = vm->vcpu_fd;
	r->cpu = vm->cpu;
	r->run = vm->run;
	r->ram = vm->ram;
	r->own.tsc_margin = FIRST_MARGIN_US * e->config.tsc_host_khz / 1000;
	r->leave_ns = UINT64_MAX;
	r->on = &r->own;
	return make_slots(r, e->nslots);
}

static int make_page_lists(struct dwc_engine *e)
{
	uint64_t pages = e->config.ram_bytes / DWC_PAGE, numbers = dwc_ram_end(e->config.ram_bytes) / DWC_PAGE;

	e->checkpoint.sums = calloc(numbers, sizeof *e->checkpoint.sums);
	e->checkpoint.new_sums = calloc(pages, sizeof *e->checkpoint.new_sums);
	e->dirty.idle = calloc(numbers, sizeof *e->dirty.idle);
	e->dirty.returns = calloc(numbers, sizeof *e->dirty.returns);
	e->dirty.pages = calloc(pages, sizeof *e->dirty.pages);
	e->dirty.changed = calloc(pages, sizeof *e->dirty.changed);
	e->dirty.cold = calloc(pages, sizeof *e->dirty.cold);
	e->dirty.clear = calloc(DWC_SLOT_BYTES / DWC_PAGE / 64, sizeof *e->dirty.clear);
	if (!e->checkpoint.sums || !e->checkpoint.new_sums || !e->dirty.idle || !e->dirty.returns || !e->dirty.pages ||
	    !e->dirty.changed || !e->dirty.cold || !e->dirty.clear)
		return -ENOMEM;
	return dwc_copies_make(e);
}

/* Make an engine, of zeros before; RAM must be all zeros, too. After it only the guest is missing, which dwc_memory_write() loads into all
 * copies of RAM, and the caller into replica A's vCPU. Returns
 * -EINVAL for an impossible config, or -ENOMEM; dwc_engine_free() is needed in any case. */
int dwc_engine_init(struct dwc_engine *e, const struct dwc_config *config)
{
	int err;

	if (!is_sound(config))
		return -EINVAL;
	e->config = *config;
	e->ops = dwc_strategy_ops(config->strategy);
	e->vms = e->ops->vms;
	e->protects = e->ops->protects;
	/* few slots need few KVM_GET_DIRTY_LOG: so there is RAM at VGA's addresses, too; the memory map does not name it */
	e->nslots = (int)((config->ram_bytes + DWC_SLOT_BYTES - 1) / DWC_SLOT_BYTES);
	for (int i = 0; i < 2; i++)
		if ((err = make_replica(e, i)))
			return err;
	e->checkpoint.ram = config->checkpoint_ram;
	e->account.now = DWC_AT_START;
	e->inputs.vector = -1;
	e->slice.events_per_ms = config->events_per_ms;
	e->sites.hot_reads = DWC_HOT_READS;
	e->clock.patience_factor = 1;
	e->clock.stretch = FIRST_STRETCH;
	e->requests.visit_from = UINT64_MAX;
	return make_page_lists(e);
}

/* Make replica A's registers the first checkpoint's, and copy them to replica B. */
static int take_first_checkpoint(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	int err;

	if ((err = dwc_state_prime(a)) || (err = dwc_state_get(a, &e->checkpoint.state)))
		return err;
	if (e->vms == 2 && (err = dwc_state_set(b, &e->checkpoint.state, 0)))
		return err;
	e->checkpoint.due = e->config.checkpoint_every <= 1;
	e->checkpoint.sum = dwc_checkpoint_sum(e);
	dwc_difference_choose(a->ram, e->checkpoint.ram);
	return 0;
}

void dwc_engine_stop(struct dwc_engine *e)
{
	dwc_replica_stop(&e->replicas[0]);
	if (e->replicas[1].has_thread)
		dwc_replica_stop(&e->replicas[1]);
}

/* Call it on the thread that will call dwc_engine_run(): vCPU 0 belongs to that thread from now on.
 * After an error no thread and no timer is left. */
int dwc_engine_start(struct dwc_engine *e)
{
	struct dwc_replica *b = &e->replicas[1];
	int err;

	if ((err = dwc_install_kick()) || (e->protects && (err = take_first_checkpoint(e))))
		return err;
	dwc_caches_prepare(e);
	e->slice.counts_void = 1;
	if (e->config.follows_host_clock)
		e->clock.host_base_ns = dwc_now_ns() - e->clock.guest_ns; /* which is not 0 for a guest that was saved */
	b->has_thread = e->config.strategy == DWC_PARALLEL;
	b->on = b->has_thread ? &b->own : &e->replicas[0].own;
	err = dwc_replica_start(&e->replicas[0]);
	if (err)
		b->has_thread = 0; /* it was not made */
	else if (b->has_thread)
		err = dwc_replica_start(b);
	if (!err) /* without running the guest: whether it can be interrupted is in the run page then, as after an exit */
		err = dwc_replica_call_both(e, dwc_replica_finish);
	if (err)
		dwc_engine_stop(e);
	return err;
}

/* Free the engine. VMs and RAM belong to the caller. */
void dwc_engine_free(struct dwc_engine *e)
{
	for (int i = 0; i < 2; i++)
		for (int slot = 0; slot < e->nslots; slot++) {
			free(e->replicas[i].slots[slot].dirty);
			e->replicas[i].slots[slot].dirty = NULL;
		}
	dwc_record_end(e);
	dwc_kept_end(e);
	dwc_past_free(e);
	dwc_copies_free(e);
	free(e->checkpoint.sums);
	free(e->checkpoint.new_sums);
	free(e->dirty.idle);
	free(e->dirty.returns);
	free(e->dirty.pages);
	free(e->dirty.changed);
	free(e->dirty.cold);
	free(e->dirty.clear);
	e->checkpoint.sums = e->checkpoint.new_sums = NULL;
	e->dirty.idle = e->dirty.returns = NULL;
	e->dirty.pages = NULL;
	e->dirty.changed = e->dirty.cold = NULL;
	e->dirty.clear = NULL;
}
