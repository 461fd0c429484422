/* The search by single steps for an instruction that reads a value of the host (insn.c) and that stock KVM does not trap. When the
 * replicas differ, one of them runs again from the checkpoint to the first such instruction, which then becomes a site (sites.c). */
#include "sites/search.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "ram.h"
#include "replica/hostreads.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "vcpu/debug.h"
#include "vcpu/exit.h"
#include "vcpu/insn.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"

#define TRAP_BYTES 2
#define VECTORS 256
#define EFER_LMA (1u << 10)
#define XINUSE 1 /* ECX of an XGETBV that reads which registers are in use */
#define MSR_SYSENTER_EIP 0x176
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083

static const uint8_t trap[TRAP_BYTES] = { 0xe6, DWC_TIME_PORT }; /* OUT imm8, al */

/* A trap, and the bytes that it replaces. */
struct entry {
	uint64_t linear, gpa;
	uint8_t code[TRAP_BYTES];
};

/* The entry points of a kernel. */
struct entries {
	struct entry entry[VECTORS + 3];
	unsigned count;
};

int dwc_is_wanted(const struct dwc_search *s, const struct dwc_insn *insn)
{
	return dwc_reads_host(insn) && s->kinds >> insn->kind & 1;
}

/* Note the instruction at which a replica is, if it is wanted. */
int dwc_at_host_read(struct dwc_replica *r, struct dwc_search *s)
{
	uint64_t linear = dwc_linear_rip(&r->state), last;

	dwc_insn_at(r, linear, &s->read);
	if (s->read.kind == DWC_READ_XGETBV && (uint32_t)r->state.regs.rcx != XINUSE) /* XCR0 is the guest's own */
		s->read.kind = DWC_INSN_OTHER;
	if (!dwc_is_wanted(s, &s->read) || !dwc_translate(r, linear, &s->gpa)) {
		s->read.kind = DWC_INSN_OTHER;
		return 0;
	}
	s->linear = linear;
	s->split = !dwc_translate(r, linear + s->read.length - 1, &last) || last - s->gpa != s->read.length - 1u;
	s->user = r->state.sregs.ss.dpl == 3;
	s->long_mode = r->state.sregs.cs.l;
	return 1;
}

/* Interrupts, exceptions and system calls clear TF, and the code that they enter would run freely. So there is an OUT
 * at the entry points during the search, which exits in ring 0 on every host. INT3 and breakpoints would not do: QEMU TCG
 * neither intercepts INT3 nor loads the debug registers at VMRUN, and kvm_pvm keeps a request to halt. */
static int set_trap(struct dwc_replica *r, struct entry *entry, uint64_t linear)
{
	if (!linear || !dwc_translate(r, linear, &entry->gpa) || entry->gpa % DWC_PAGE + TRAP_BYTES > DWC_PAGE)
		return 0;
	entry->linear = linear;
	dwc_touch(r->engine, entry->gpa);
	memcpy(entry->code, r->ram + entry->gpa, TRAP_BYTES);
	memcpy(r->ram + entry->gpa, trap, TRAP_BYTES);
	return 1;
}

static void clear_trap(struct dwc_replica *r, const struct entry *entry)
{
	memcpy(r->ram + entry->gpa, entry->code, TRAP_BYTES);
}

static void add_entry(struct dwc_replica *r, struct entries *entries, uint64_t linear)
{
	for (unsigned i = 0; i < entries->count; i++)
		if (entries->entry[i].linear == linear)
			return;
	entries->count += (unsigned)set_trap(r, &entries->entry[entries->count], linear);
}

/* SDM vol. 3A 6.14.1: gates of the 64-bit IDT have 16 bytes, with the offset in three pieces. */
static void add_gates(struct dwc_replica *r, struct entries *entries)
{
	const struct kvm_dtable *idt = &r->state.sregs.idt;
	uint64_t gpa, gate[2];

	for (uint32_t at = 0; at < VECTORS * sizeof gate && at + sizeof gate - 1 <= idt->limit; at += sizeof gate) {
		if (!dwc_translate(r, idt->base + at, &gpa) || !dwc_is_ram(r->engine->config.ram_bytes, gpa, sizeof gate))
			continue;
		memcpy(gate, r->ram + gpa, sizeof gate);
		add_entry(r, entries, (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32);
	}
}

static void set_entries(struct dwc_replica *r, struct entries *entries)
{
	const struct dwc_msrs *msrs = &r->engine->checkpoint.state.msrs;

	entries->count = 0;
	if (!(r->state.sregs.efer & EFER_LMA))
		return;
	add_gates(r, entries);
	for (uint32_t i = 0; i < msrs->count; i++)
		if (msrs->entries[i].index == MSR_LSTAR || msrs->entries[i].index == MSR_CSTAR ||
		    msrs->entries[i].index == MSR_SYSENTER_EIP)
			add_entry(r, entries, msrs->entries[i].data);
}

static void clear_entries(struct dwc_replica *r, const struct entries *entries)
{
	for (unsigned i = entries->count; i--;)
		clear_trap(r, &entries->entry[i]);
}

/* Whether this trap has ended the run. */
static int is_exit_of(const struct dwc_replica *r, const struct entry *entry)
{
	const struct kvm_run *run = r->run;
	uint64_t linear = run->s.regs.regs.rip + run->s.regs.sregs.cs.base - (r->engine->config.out_rip_after ? TRAP_BYTES : 0);

	return run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT && run->io.port == DWC_TIME_PORT &&
	       entry->linear == linear;
}

static const struct entry *entry_of_exit(const struct dwc_replica *r, const struct entries *entries)
{
	for (unsigned i = 0; i < entries->count; i++)
		if (is_exit_of(r, &entries->entry[i]))
			return &entries->entry[i];
	return NULL;
}

/* At the trap: finish its OUT, and go to the instruction that it replaces. */
static int enter(struct dwc_replica *r, const struct entry *entry)
{
	int err;

	if ((err = dwc_set_stepping(r, 0)) || (err = dwc_replica_complete(r)))
		return err;
	r->run->s.regs.regs.rip = entry->linear - r->run->s.regs.sregs.cs.base;
	clear_trap(r, entry);
	return dwc_set_regs(r);
}

static int is_over(const struct dwc_replica *r)
{
	const struct dwc_engine *e = r->engine;

	return atomic_load(&e->requests.stop) || dwc_now_ns() - r->started_ns >= e->search.limit_ns;
}

/* Enter the guest until it exits, in spite of kicks, but not beyond the end of the search. */
static int enter_guest(struct dwc_replica *r)
{
	long ran;

	while ((ran = dwc_ioctl(r->vcpu_fd, KVM_RUN, NULL)) == -EINTR || ran == -EAGAIN) {
		r->run->immediate_exit = 0;
		if (is_over(r)) {
			r->run->exit_reason = KVM_EXIT_INTR;
			return 0;
		}
	}
	return (int)ran;
}

static int run_a_step(struct dwc_replica *r)
{
	struct dwc_step step;
	int err;

	/* POPF and IRET of the guest switch it off */
	if ((err = dwc_set_stepping(r, 1)) < 0 || (err = dwc_begin_step(r, &step)) || (err = enter_guest(r)) < 0)
		return err;
	return dwc_end_step(r, &step);
}

/* Pass a repeated string instruction in ring 0: a step would be only one of its turns, of which there can be millions. Returns 0 if
 * the replica is not at one, 1 after passing it, 2 if something else has ended the run (such as a page fault), or -errno. */
static int pass_repeat(struct dwc_replica *r)
{
	uint64_t linear = dwc_linear_rip(&r->state);
	struct dwc_insn insn;
	struct entry after;
	int err;

	dwc_insn_at(r, linear, &insn);
	if (insn.kind != DWC_INSN_STRING || r->state.sregs.ss.dpl == 3 || !set_trap(r, &after, linear + insn.length))
		return 0;
	if ((err = dwc_set_stepping(r, 0)) >= 0)
		err = enter_guest(r);
	if (err >= 0 && is_exit_of(r, &after))
		return (err = enter(r, &after)) < 0 ? err : 1;
	clear_trap(r, &after);
	return err < 0 ? err : 2;
}

/* Whether the exit is an inner one: its instruction is finished by the next step. */
static int pass_exit(struct dwc_replica *r)
{
	dwc_describe_exit(r);
	return dwc_inner_pass(r);
}

static int job_find(struct dwc_replica *r)
{
	struct dwc_search *s = &r->engine->search;
	const struct entry *entry = NULL;
	struct entries entries;
	/* no register may be set before that is finished; the answer to a site's IN has finished it */
	int err = 0, pending = r->engine->has_pending_io && r->engine->inputs.answer != DWC_ANSWER_SITE_PORT;

	r->run->request_interrupt_window = 0;
	dwc_inner_plan(r, s->inner_limit, 0);
	r->started_ns = dwc_now_ns();
	if (!pending) {
		r->state.regs = r->run->s.regs.regs; /* as set by the answer */
		if (dwc_at_host_read(r, s))
			return 0;
	}
	set_entries(r, &entries);
	while (s->steps < s->limit && !is_over(r)) {
		uint64_t rip = r->run->s.regs.regs.rip;
		int passed = entry || pending ? 0 : pass_repeat(r);

		if ((err = passed) < 0 || (!passed && (err = run_a_step(r)) < 0))
			break;
		pending = 0;
		if (entry)
			memcpy(r->ram + entry->gpa, trap, TRAP_BYTES);
		entry = passed == 1 ? NULL : entry_of_exit(r, &entries);
		if (entry ? (err = enter(r, entry)) < 0 : passed != 1 && r->run->exit_reason != KVM_EXIT_DEBUG && !(pending = pass_exit(r)))
			break;
		dwc_state_get_synced(r, &r->state);
		s->steps += r->run->s.regs.regs.rip != rip; /* do not count turns of a REP in ring 3, nor a jump to itself */
		if (dwc_at_host_read(r, s))
			break;
	}
	s->timed_out = is_over(r) && !atomic_load(&r->engine->requests.stop);
	s->exit_reason = r->run->exit_reason;
	clear_entries(r, &entries);
	dwc_set_stepping(r, 0);
	return err < 0 ? err : 0;
}

int dwc_search(struct dwc_engine *e, int (*job)(struct dwc_replica *))
{
	struct dwc_replica *r = &e->replicas[0];
	int err;

	e->search.read.kind = DWC_INSN_OTHER;
	e->search.steps = 0;
	e->search.timed_out = 0;
	if ((err = dwc_replica_call(r, dwc_replica_feed)))
		return err;
	r->stage = DWC_STAGE_RAN;
	err = dwc_replica_call(r, job);
	e->search.rip = r->state.regs.rip;
	return err;
}

/* Step replica A from the checkpoint (after a rollback) to the first wanted instruction, for at most search.limit instructions and
 * search.limit_ns. It leaves traces in the guest: roll back again. */
int dwc_search_by_steps(struct dwc_engine *e)
{
	return dwc_search(e, job_find);
}
