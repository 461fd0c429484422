/* Strategy in-place: one VM runs each element twice (Tokponnon & Lobelle, FOSDEM 2017). Phases: t1, the first run; r1, its results
 * are set aside and the VM is restored; cf, caches are flushed (caches.c); t2, the second run; cc, compare and commit.
 *
 * The VM is replica 0. Replica 1 has no VM: it shares the file descriptors and the run page, and its state, exit and RAM hold what
 * e1 left. Between elements both RAMs equal the checkpoint, so that a page that a run did not write compares equal. The VM has the
 * only dirty log: only a commit takes pages out of it, so at the end of e2 it also names the pages of e1.
 *
 * Each element is a checkpoint, which is after the I/O instruction that ended the element before: KVM finishes that first, once, with
 * the device's answer. So neither run and no rollback has to repeat it. */
#include "element/inplace.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "element/caches.h"
#include "element/rollback.h"
#include "element/run.h"
#include "element/slice.h"
#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "memory/guard.h"
#include "memory/pages.h"
#include "phase.h"
#include "replica/clock.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "status.h"
#include "sum.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

/* Mark the pages in the log that differ from the checkpoint. */
static void find_changed(struct dwc_engine *e)
{
	dwc_pages_list(e);
	for (uint32_t i = 0; i < e->dirty.count; i++) {
		uint64_t gpa = (uint64_t)e->dirty.pages[i].page * DWC_PAGE;

		e->dirty.pages[i].changed = memcmp(e->replicas[0].ram + gpa, dwc_saved_page(e, gpa), DWC_PAGE) != 0;
	}
}

/* The next changed page, which is in `gpa`; `at` counts from 0. Returns 0 after the last. */
static int next_changed(const struct dwc_engine *e, uint32_t *at, uint64_t *gpa)
{
	while (*at < e->dirty.count && !e->dirty.pages[*at].changed)
		++*at;
	if (*at == e->dirty.count)
		return 0;
	*gpa = (uint64_t)e->dirty.pages[(*at)++].page * DWC_PAGE;
	return 1;
}

/* Set the changed pages aside, as replica B's. */
static void keep_changed(struct dwc_engine *e)
{
	uint64_t gpa;

	for (uint32_t at = 0; next_changed(e, &at, &gpa);)
		memcpy(e->replicas[1].ram + gpa, e->replicas[0].ram + gpa, DWC_PAGE);
}

static void restore_changed(struct dwc_engine *e)
{
	uint64_t gpa;

	for (uint32_t at = 0; next_changed(e, &at, &gpa);)
		memcpy(e->replicas[0].ram + gpa, dwc_saved_page(e, gpa), DWC_PAGE);
}

/* Copy what KVM's emulator wrote to guest memory to all copies of RAM: it is the same for both runs. */
static int accept_memory(struct dwc_engine *e)
{
	int err = dwc_pages_harvest(&e->replicas[0]);
	uint64_t gpa;

	if (err)
		return err;
	find_changed(e);
	keep_changed(e);
	for (uint32_t at = 0; next_changed(e, &at, &gpa);) {
		memcpy(dwc_page_to_save(e, gpa), e->replicas[0].ram + gpa, DWC_PAGE);
		dwc_set_page_sum(e, gpa, dwc_page_sum(e->replicas[0].ram + gpa));
	}
	return 0;
}

/* Set aside what e1 left: state, exit, and times. */
static void set_aside(struct dwc_engine *e)
{
	struct dwc_replica *vm = &e->replicas[0], *kept = &e->replicas[1];

	kept->state = vm->state;
	dwc_copy_exit(&kept->exit, &vm->exit);
	kept->started_ns = vm->started_ns;
	kept->ended_ns = vm->ended_ns;
	kept->tick_crossed = vm->tick_crossed;
}

/* The instruction exits again: for the next part of a long memory-mapped access, or for its write after a read. What is left of it
 * is in KVM's emulator and in no register. So this exit is an element of its own, in which no guest code runs. */
static int take_fragment(struct dwc_engine *e)
{
	struct dwc_replica *vm = &e->replicas[0];
	int err;

	dwc_describe_exit(vm);
	if ((err = dwc_state_get(vm, &vm->state)))
		return err;
	vm->started_ns = vm->ended_ns = dwc_now_ns();
	set_aside(e);
	e->dirty.changed_count = 0;
	dwc_set_phase(e, DWC_PHASE_FRAGMENT);
	return 0;
}

/* e2 starts with MSRs that were set through KVM, so e1 must, too: kvm_amd drops the upper halves of SYSENTER_ESP and _EIP when
 * they are set (svm_set_msr), but not when the guest writes them. */
static int give_msrs(struct dwc_engine *e)
{
	const struct dwc_msrs *msrs = &e->checkpoint.state.msrs;

	if (!memcmp(msrs->entries, e->in_place.msrs_given.entries, msrs->count * sizeof msrs->entries[0]))
		return 0;
	e->in_place.msrs_given = *msrs;
	return dwc_set_msrs(&e->replicas[0], msrs);
}

/* Bring the VM and the checkpoint past the exit that ended the last element, with the device's answer. */
static int finish_exit(struct dwc_engine *e)
{
	struct dwc_replica *vm = &e->replicas[0];
	const struct dwc_exit *x = &e->checkpoint.exit;
	uint64_t rdi = vm->run->s.regs.regs.rdi;
	int io = dwc_is_io(x), mmio_read = x->reason == KVM_EXIT_MMIO && !x->is_write, err, again = 0;

	if ((err = dwc_replica_answer(vm)))
		return err;
	/* an exception that waits in the run page goes to KVM: whoever sets registers now reads events from there */
	if ((io || vm->run->kvm_dirty_regs) && (again = dwc_replica_finish(vm)) < 0)
		return again;
	/* INS moves RDI, IN does not; a read from a device's memory can go anywhere, also to XMM registers */
	if ((mmio_read || again || vm->run->s.regs.regs.rdi != rdi) && (err = accept_memory(e)))
		return err;
	if (mmio_read && (err = dwc_state_get(vm, &e->checkpoint.state)))
		return err;
	dwc_state_get_synced(vm, &e->checkpoint.state);
	memset(&e->checkpoint.exit, 0, offsetof(struct dwc_exit, data));
	e->checkpoint.exit.reason = KVM_EXIT_INTR; /* nothing is pending */
	e->checkpoint.sum = dwc_checkpoint_sum(e);
	e->has_pending_io = 0;
	e->inputs.answer = DWC_ANSWER_IO;
	return again ? take_fragment(e) : 0;
}

/* Make the VM ready for the next element, once for each element, and before a fault is injected. */
int dwc_inplace_make_ready(struct dwc_engine *e)
{
	enum dwc_activity before = dwc_enter(&e->replicas[0], DWC_AT_COMPARE_COMMIT);
	int err = 0;

	if (dwc_is_io(&e->checkpoint.exit) || e->inputs.answer != DWC_ANSWER_IO)
		err = finish_exit(e);
	err = err ? err : give_msrs(e);
	dwc_leave(&e->replicas[0], before);
	return err;
}

/* r1: set aside what e1 left, and restore the VM. */
static int rewind_vm(struct dwc_engine *e)
{
	struct dwc_replica *vm = &e->replicas[0];
	int err;

	set_aside(e);
	find_changed(e);
	keep_changed(e);
	if (dwc_is_io(&vm->exit)) {
		if ((err = dwc_replica_complete(vm)))
			return err;
		if (!vm->exit.is_write) { /* the data read may have gone to memory */
			if ((err = dwc_pages_harvest(vm)))
				return err;
			find_changed(e);
		}
	}
	restore_changed(e);
	return dwc_job_restore(vm);
}

/* r1 and cf: to FIRST_RUN_DONE. The VM's log has been read. */
int dwc_inplace_rewind(struct dwc_engine *e)
{
	struct dwc_replica *vm = &e->replicas[0];
	enum dwc_activity before = dwc_enter(vm, DWC_AT_RESTORE);
	int err = rewind_vm(e);

	dwc_leave(vm, before);
	if (err)
		return err;
	dwc_set_phase(e, DWC_PHASE_FIRST_RUN_DONE);
	if (e->config.cache_flush == DWC_CACHE_KEPT)
		return 0;
	before = dwc_enter(vm, DWC_AT_FLUSH);
	dwc_caches_flush(e);
	dwc_leave(vm, before);
	return 0;
}

/* After the restore e2 starts with an empty TLB, so e1 must, too. Otherwise a stale translation, or an accessed bit that a cached
 * translation leaves alone, could make them differ. */
static int empty_tlb(struct dwc_replica *vm)
{
	struct dwc_state s; /* its synced groups, as KVM has them */
	enum dwc_activity before = dwc_enter(vm, DWC_AT_RESTORE);
	int err;

	dwc_state_get_synced(vm, &s);
	err = dwc_flush_tlb(vm, &s.sregs);
	dwc_leave(vm, before);
	return err;
}

/* e1, and the restore. If e1 does not reach a natural end, the element ends as e1 does. */
int dwc_inplace_run(struct dwc_engine *e)
{
	struct dwc_replica *vm = &e->replicas[0];
	int end, err;

	dwc_limit_set(vm, dwc_time_limit(e, &e->pc, e->clock.guest_ns), e->clock.stretch);
	dwc_inner_plan(vm, 1, 0);
	if ((err = empty_tlb(vm)))
		return err;
	dwc_account(e, DWC_AT_FIRST_RUN);
	end = dwc_job_element(vm);
	if (end == DWC_RUN_TIME_LIMIT)
		return dwc_cut(e, vm);
	if (end)
		return dwc_stop_of(end);
	dwc_limit_was_kept(vm);
	return dwc_inplace_rewind(e);
}

/* e2. The guest clock moves by the time of e1. */
int dwc_inplace_run_again(struct dwc_engine *e)
{
	struct dwc_replica *vm = &e->replicas[0], *kept = &e->replicas[1];
	int end, stop;

	dwc_account(e, DWC_AT_SECOND_RUN);
	end = dwc_job_element(vm);
	stop = end == DWC_RUN_TIME_LIMIT ? dwc_extend(e, vm) : dwc_stop_of(end);
	dwc_slice_note(e);
	vm->started_ns = kept->started_ns;
	vm->ended_ns = kept->ended_ns;
	if (!stop)
		dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return stop;
}
