/* The search for a time instruction. RDTSC cannot be trapped on stock KVM: where the replicas differ, one runs again from
 * the checkpoint, freely with traps or single-stepped, to the first RDTSC or RDTSCP. What becomes of it: sites.c. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 3 /* RDTSCP */
#define TRAP_BYTES 2
#define MOST_TRAPS (1u << 20)
#define SCAN_NS 10000000000ull
#define VECTORS 256
#define EFER_LMA (1u << 10)
#define MSR_SYSENTER_EIP 0x176
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083

static const uint8_t trap[TRAP_BYTES] = { 0xe6, DWC_TIME_PORT }; /* OUT imm8, al */

/* Where a kernel is entered, and what stood there before the trap. */
struct entry {
	uint64_t linear, gpa;
	uint8_t code[TRAP_BYTES];
};

struct entries {
	struct entry entry[VECTORS + 3];
	unsigned count;
};

static uint8_t time_read_at(const uint8_t *code)
{
	if (code[0] != 0x0f)
		return 0;
	if (code[1] == 0x31)
		return 2;
	return code[1] == 0x01 && code[2] == 0xf9 ? 3 : 0;
}

static void note_mode(struct dwc_search *s, const struct kvm_sregs *sregs)
{
	s->user = sregs->ss.dpl == 3;
	s->long_mode = sregs->cs.l;
}

static int at_time_read(struct dwc_replica *r, struct dwc_search *s)
{
	uint64_t linear = dwc_linear_rip(&r->state);
	uint8_t code[LONGEST];

	dwc_read_code(r, linear, code, sizeof code);
	s->length = time_read_at(code);
	note_mode(s, &r->state.sregs);
	return s->length && dwc_translate(r, linear, &s->gpa);
}

/* Interrupts, exceptions and system calls clear TF on their way in, and what they enter would run
 * freely: an OUT stands there during the search. In ring 0 it exits everywhere; QEMU TCG neither
 * intercepts INT3 nor loads the debug registers at VMRUN, and kvm_pvm keeps a request to halt. */
static void add_entry(struct dwc_replica *r, struct entries *entries, uint64_t linear)
{
	struct entry *entry = &entries->entry[entries->count];

	for (unsigned i = 0; i < entries->count; i++)
		if (entries->entry[i].linear == linear)
			return;
	if (!linear || !dwc_translate(r, linear, &entry->gpa) || entry->gpa % DWC_PAGE + TRAP_BYTES > DWC_PAGE)
		return;
	entry->linear = linear;
	memcpy(entry->code, r->ram + entry->gpa, TRAP_BYTES);
	memcpy(r->ram + entry->gpa, trap, TRAP_BYTES);
	entries->count++;
}

/* SDM vol. 3A 6.14.1: gates of the 64-bit IDT are 16 bytes, the offset lies in three pieces. */
static void add_gates(struct dwc_replica *r, struct entries *entries)
{
	const struct kvm_dtable *idt = &r->state.sregs.idt;
	uint64_t gpa, gate[2];

	for (uint32_t at = 0; at < VECTORS * sizeof gate && at + sizeof gate - 1 <= idt->limit; at += sizeof gate) {
		if (!dwc_translate(r, idt->base + at, &gpa) || gpa + sizeof gate > r->engine->ram_bytes)
			continue;
		memcpy(gate, r->ram + gpa, sizeof gate);
		add_entry(r, entries, (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32);
	}
}

static void set_entries(struct dwc_replica *r, struct entries *entries)
{
	const struct dwc_msrs *msrs = &r->engine->checkpoint.msrs;

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
		memcpy(r->ram + entries->entry[i].gpa, entries->entry[i].code, TRAP_BYTES);
}

static const struct entry *entry_of_exit(const struct dwc_replica *r, const struct entries *entries)
{
	const struct kvm_run *run = r->run;
	uint64_t rip = run->s.regs.regs.rip - (r->engine->out_rip_after ? TRAP_BYTES : 0);

	if (run->exit_reason != KVM_EXIT_IO || run->io.direction != KVM_EXIT_IO_OUT || run->io.port != DWC_TIME_PORT)
		return NULL;
	for (unsigned i = 0; i < entries->count; i++)
		if (entries->entry[i].linear == rip)
			return &entries->entry[i];
	return NULL;
}

/* At the trap: finish its OUT, and stand before what it replaced. */
static int enter(struct dwc_replica *r, const struct entry *entry)
{
	int err;

	if ((err = dwc_set_stepping(r, 0)) || (err = dwc_replica_complete(r)))
		return err;
	r->run->s.regs.regs.rip = entry->linear;
	memcpy(r->ram + entry->gpa, entry->code, TRAP_BYTES);
	return dwc_set_regs(r);
}

static int run_a_step(struct dwc_replica *r)
{
	struct dwc_step step;
	long ran;
	int err;

	if ((err = dwc_begin_step(r, &step)))
		return err;
	while ((ran = dwc_ioctl(r->vcpu_fd, KVM_RUN, NULL)) == -EINTR || ran == -EAGAIN)
		r->run->immediate_exit = 0;
	return ran < 0 ? (int)ran : dwc_end_step(r, &step);
}

static int job_find(struct dwc_replica *r)
{
	struct dwc_search *s = &r->engine->search;
	const struct entry *entry = NULL;
	struct entries entries;
	int err = 0;

	r->run->request_interrupt_window = 0;
	s->steps = 0;
	if (!r->engine->has_pending_io) {
		r->state.regs = r->run->s.regs.regs; /* as the answer has set them */
		if (at_time_read(r, s))
			return 0;
	}
	set_entries(r, &entries);
	for (s->steps = 0; s->steps < s->limit && !atomic_load(&r->engine->stop); s->steps++) {
		/* POPF and IRET of the guest disarm it */
		if ((err = dwc_set_stepping(r, 1)) < 0 || (err = run_a_step(r)) < 0)
			break;
		if (entry)
			memcpy(r->ram + entry->gpa, trap, TRAP_BYTES);
		entry = entry_of_exit(r, &entries);
		if (entry ? (err = enter(r, entry)) < 0 : r->run->exit_reason != KVM_EXIT_DEBUG)
			break;
		dwc_state_get_synced(r, &r->state);
		if (at_time_read(r, s)) {
			s->steps++;
			break;
		}
	}
	s->exit_reason = r->run->exit_reason;
	clear_entries(r, &entries);
	dwc_set_stepping(r, 0);
	return err;
}

static int search(struct dwc_engine *e, int replica, int (*job)(struct dwc_replica *))
{
	struct dwc_replica *r = &e->replicas[replica];
	int err;

	e->search.length = 0;
	if ((err = dwc_replica_call(r, dwc_replica_feed)))
		return err;
	return dwc_replica_call(r, job);
}

/* Step a replica from the checkpoint (after a rollback) to the first RDTSC or RDTSCP, at most
 * search.limit instructions. It leaves traces in the guest: roll back again. */
int dwc_find_time_site(struct dwc_engine *e, int replica)
{
	return search(e, replica, job_find);
}

/* Replace every RDTSC and RDTSCP in RAM, or what looks like one, by a trap; returns how many. SYSENTER, where it is
 * a trap, is one in ring 0 as well. */
static uint64_t set_traps(struct dwc_replica *r, uint64_t *gpas, uint8_t *lengths)
{
	int sysenter = r->engine->user_trap == DWC_USER_TRAP_SYSENTER;
	const uint8_t *trap_read = sysenter ? dwc_sysenter_trap : dwc_port_trap;
	uint8_t *at = r->ram, *end = r->ram + r->engine->ram_bytes - LONGEST;
	uint64_t count = 0;

	while (count < MOST_TRAPS && (at = memchr(at, 0x0f, (size_t)(end - at)))) {
		lengths[count] = time_read_at(at);
		if (lengths[count]) {
			memcpy(at, trap_read, lengths[count]);
			gpas[count++] = (uint64_t)(at - r->ram);
		}
		at++;
	}
	return count;
}

static void clear_traps(struct dwc_replica *r, const uint64_t *gpas, const uint8_t *lengths, uint64_t count)
{
	static const uint8_t reads[2][LONGEST] = { { 0x0f, 0x31 }, { 0x0f, 0x01, 0xf9 } };

	for (uint64_t i = 0; i < count; i++)
		memcpy(r->ram + gpas[i], reads[lengths[i] == 3], lengths[i]);
}

static int is_trapped_read(const struct dwc_exit *x)
{
	if (x->reason == KVM_EXIT_INTERNAL_ERROR)
		return x->info == KVM_INTERNAL_ERROR_EMULATION;
	return x->reason == KVM_EXIT_IO && !x->is_write && x->port == DWC_TIME_PORT;
}

/* To the next exit, or to the bound of the search: what stands behind the end of the element is not its cause. */
static int run_free(struct dwc_replica *r, uint64_t events)
{
	int err, status;

	if (events && (err = dwc_counter_arm(r, events)))
		return err;
	r->started_ns = dwc_now_ns();
	status = dwc_replica_run(r, SCAN_NS);
	if (events && (err = dwc_counter_disarm(r)))
		return err;
	return status;
}

static int job_scan(struct dwc_replica *r)
{
	struct dwc_search *s = &r->engine->search;
	uint64_t *gpas = malloc(MOST_TRAPS * sizeof *gpas), count, gpa;
	uint8_t *lengths = malloc(MOST_TRAPS);
	int err = -ENOMEM;

	if (gpas && lengths) {
		count = set_traps(r, gpas, lengths);
		r->run->request_interrupt_window = 0;
		err = run_free(r, s->events);
		if (!err && is_trapped_read(&r->exit) &&
		    dwc_translate(r, dwc_linear_rip(&r->state), &gpa))
			for (uint64_t i = 0; i < count; i++)
				if (gpas[i] == gpa) {
					s->gpa = gpa;
					s->length = lengths[i];
					note_mode(s, &r->state.sregs);
				}
		clear_traps(r, gpas, lengths, count);
	}
	free(gpas);
	free(lengths);
	return err < 0 ? err : 0;
}

/* The same by one free run with a trap at everything in RAM that looks like a time instruction: fast, and
 * sure if it stops at one, for that was executed. Data that looks so is changed for the run only, like the code
 * of ring 3 where the trap is IN, and none there: then nothing is found. Roll back afterwards. */
int dwc_scan_time_site(struct dwc_engine *e, int replica)
{
	return search(e, replica, job_scan);
}
