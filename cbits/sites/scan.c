/* The scan: one free run with traps at everything in RAM that looks like a wanted instruction. It is fast, and if it stops at a
 * trap the instruction there was executed. Data that looks like one is changed only during the run. If the trap is IN it does not
 * work in ring 3, and nothing is found there. */
#include "sites/scan.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "ram.h"
#include "replica/inner.h"
#include "replica/replica.h"
#include "sites/search.h"
#include "sites/sites.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/exit.h"
#include "vcpu/insn.h"

#define MOST_TRAPS (1u << 20)
#define TRAP_BYTES 3   /* from the opcode on, at most: RDTSC is shorter */
#define MOST_PREFIXES (DWC_LONGEST_INSTRUCTION - 2)
#define TWO_BYTES 0x0f
#define EFER_LMA (1u << 10)

struct trap {
	uint64_t gpa;
	uint8_t length, code[TRAP_BYTES];
};

struct traps {
	struct trap *trap;
	uint64_t count;
};

/* Whether the bytes from a 0x0f on look wanted. Prefixes before them are not known: with REP, RDSEED is RDPID. One byte in forty of
 * code is 0x0f, so most are told by the second byte alone (SDM 2 table A-3): RDTSC; RDTSCP and XGETBV; RDRAND, RDSEED and RDPID. */
static int looks_wanted(const struct dwc_search *s, const uint8_t *at, struct dwc_insn *insn)
{
	if (at[1] != 0x31 && at[1] != 0x01 && at[1] != 0xc7)
		return 0;
	dwc_decode(at, 32, insn);
	return dwc_is_wanted(s, insn) || (insn->kind == DWC_READ_RDSEED && s->kinds >> DWC_READ_RDPID & 1);
}

/* Set traps from one address on up to another. If SYSENTER is the trap of ring 3, it is also one in ring 0 of long mode. Before long
 * mode a kernel does not use ring 3. */
static void set_traps(struct dwc_replica *r, struct traps *traps, uint64_t from, uint64_t to)
{
	const struct dwc_engine *e = r->engine;
	int sysenter = e->config.user_trap == DWC_USER_TRAP_SYSENTER && r->run->s.regs.sregs.efer & EFER_LMA;
	const uint8_t *code = sysenter ? dwc_sysenter_trap : dwc_port_trap;
	uint8_t *at = r->ram + from, *end = r->ram + to;
	struct dwc_insn insn;

	while (traps->count < MOST_TRAPS && at < end && (at = memchr(at, TWO_BYTES, (size_t)(end - at)))) {
		if (looks_wanted(&e->search, at, &insn)) {
			struct trap *trap = &traps->trap[traps->count++];

			trap->gpa = (uint64_t)(at - r->ram);
			trap->length = insn.length;
			memcpy(trap->code, at, trap->length);
			memcpy(at, code, trap->length);
		}
		at++;
	}
}

/* Code is in pages that were written, by whomever. A run of such pages ends with RAM, or before a page of zeros, in which no instruction
 * goes on. */
static void set_all_traps(struct dwc_replica *r, struct traps *traps)
{
	const struct dwc_engine *e = r->engine;
	uint64_t from, to = 0;

	while ((from = dwc_next_touched(e, to)) != DWC_NO_PAGE) {
		to = from + DWC_PAGE;
		while (dwc_next_touched(e, to) == to)
			to += DWC_PAGE;
		set_traps(r, traps, from, dwc_is_ram(e->config.ram_bytes, to, 1) ? to : to - DWC_LONGEST_INSTRUCTION);
	}
}

static void clear_traps(struct dwc_replica *r, const struct traps *traps)
{
	for (uint64_t i = traps->count; i--;)
		memcpy(r->ram + traps->trap[i].gpa, traps->trap[i].code, traps->trap[i].length);
}

static int is_trap(const struct dwc_exit *x)
{
	if (x->reason == KVM_EXIT_INTERNAL_ERROR)
		return x->info == KVM_INTERNAL_ERROR_EMULATION;
	return x->reason == KVM_EXIT_IO && !x->is_write && x->port == DWC_TIME_PORT;
}

/* Whether the run was ended at this address by one of the traps, which may have its instruction's prefixes before it. */
static int is_ours(const struct traps *traps, uint64_t gpa)
{
	for (uint64_t i = 0; i < traps->count; i++)
		if (traps->trap[i].gpa >= gpa && traps->trap[i].gpa <= gpa + MOST_PREFIXES)
			return 1;
	return 0;
}

/* Run to the next exit or to the limits: an instruction after the element's end cannot be the cause. */
static int run_free(struct dwc_replica *r, const struct dwc_search *s)
{
	int status;

	if (s->events)
		dwc_counter_arm(r, s->events);
	dwc_inner_plan(r, s->inner_limit, 0);
	r->started_ns = dwc_now_ns();
	status = dwc_replica_run(r, s->limit_ns);
	dwc_counter_disarm(r);
	return status;
}

static int job_scan(struct dwc_replica *r)
{
	struct dwc_search *s = &r->engine->search;
	struct traps traps = { malloc(MOST_TRAPS * sizeof *traps.trap), 0 };
	int err;

	if (!traps.trap)
		return -ENOMEM;
	set_all_traps(r, &traps);
	r->run->request_interrupt_window = 0;
	err = run_free(r, s);
	clear_traps(r, &traps);
	s->timed_out = err == DWC_RUN_TIME_LIMIT;
	if (!err && is_trap(&r->exit) && dwc_at_host_read(r, s) && !is_ours(&traps, s->gpa))
		s->read.kind = DWC_INSN_OTHER;
	free(traps.trap);
	return err < 0 ? err : 0;
}

/* Scan with replica A from the checkpoint (after a rollback), for at most search.limit_ns and search.events. It leaves traces: roll
 * back again. */
int dwc_search_by_traps(struct dwc_engine *e)
{
	return dwc_search(e, job_scan);
}
