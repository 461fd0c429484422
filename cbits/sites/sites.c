/* Learned sites: instructions that read a value of the host (the TSC, a random number; insn.c), replaced by a trap of the same
 * length, in both replicas and the checkpoint. From then on the VMM supplies the value, the same for both replicas: time in ring 0 by an
 * inner exit (replica/inner.c); at all other sites the element ends.
 *
 * In ring 0 the trap is IN eax, imm8, which exits on every KVM. In ring 3 that depends on IOPL; there the trap is one of two,
 * depending on what the host was found to do (hostprobe.py):
 * ICEBP raises a debug exception that needs no gate, and that exits while KVM_SET_GUEST_DEBUG asks for hardware breakpoints;
 * SYSENTER is unknown to AMD's processors in long mode, and KVM does not emulate it in 64-bit code (em_sysenter in emulate.c),
 * which exits by KVM_CAP_EXIT_ON_EMULATION_FAILURE. There is no such trap in 32-bit code.
 * The guest's own debug exceptions and invalid opcodes then exit as well, and are passed back to it. */
#include "sites/sites.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>
#include <x86intrin.h>

#include "assertion.h"
#include "engine.h"
#include "host.h"
#include "memory/dma.h"
#include "phase.h"
#include "record/record.h"
#include "replica/hostreads.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sites/search.h"
#include "vcpu/debug.h"
#include "vcpu/exit.h"
#include "vcpu/insn.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"
#include "vcpu/tsc.h"

#define NOP 0x90
#define LAST (DWC_LONGEST_INSTRUCTION - 1)
#define DR6_ACTIVE_LOW 0xffff0ff0ull /* bits that are set unless something happened (SDM 3B 18.2.3) */

const uint8_t dwc_port_trap[DWC_LONGEST_INSTRUCTION] = { 0xe5, DWC_TIME_PORT, [2 ... LAST] = NOP };
const uint8_t dwc_sysenter_trap[DWC_LONGEST_INSTRUCTION] = { 0x0f, 0x34, [2 ... LAST] = NOP };
static const uint8_t icebp_trap[DWC_LONGEST_INSTRUCTION] = { 0xf1, [1 ... LAST] = NOP };

static int job_refresh_guest_debug(struct dwc_replica *r)
{
	return dwc_set_stepping(r, 0);
}

/* The site at an address, or the next free one; NULL if there is none. */
static struct dwc_site *site_for(struct dwc_engine *e, uint64_t gpa)
{
	struct dwc_site *site = e->sites.site, *end = site + e->sites.count;

	while (site < end && site->gpa != gpa)
		site++;
	return site < e->sites.site + DWC_MAX_SITES ? site : NULL;
}

/* Whether there is room for the site where the last search ended. A known one needs none: the guest has written this instruction, or
 * another one, there again. */
int dwc_can_learn_site(struct dwc_engine *e)
{
	return site_for(e, e->search.gpa) != NULL;
}

/* Note the instruction that the last search found. A known site can be another instruction now, and in another ring. */
static void note(struct dwc_engine *e, struct dwc_site *site)
{
	int icebp = e->config.user_trap == DWC_USER_TRAP_ICEBP, known = site < e->sites.site + e->sites.count;

	e->sites.in_user += icebp * (e->search.user - (known && site->user));
	e->sites.count += !known;
	site->gpa = e->search.gpa;
	site->read = e->search.read;
	site->user = (uint8_t)e->search.user;
}

static const uint8_t *trap_code(const struct dwc_engine *e, int user)
{
	if (!user)
		return dwc_port_trap;
	return e->config.user_trap == DWC_USER_TRAP_ICEBP ? icebp_trap : dwc_sysenter_trap;
}

/* Put the trap where the last search ended. The replicas must be at the checkpoint. */
int dwc_learn_site(struct dwc_engine *e)
{
	const struct dwc_search *found = &e->search;
	struct dwc_site *site = site_for(e, found->gpa);
	int err, had_some = e->sites.in_user > 0;

	DWC_ASSERT(e, e->phase == DWC_PHASE_BETWEEN || e->phase == DWC_PHASE_INPUTS_CHOSEN);
	DWC_ASSERT(e, !e->log.count); /* a replay from an earlier checkpoint would meet the trap where there was none */
	if (!site)
		return -ENOSPC;
	memcpy(site->original, e->replicas[0].ram + found->gpa, found->read.length);
	if ((err = dwc_memory_write(e, found->gpa, trap_code(e, found->user), found->read.length)))
		return err;
	note(e, site);
	e->inputs.site_tsc = dwc_tsc_next(e); /* the element whose inputs are chosen meets it */
	e->sites.reads_before = e->sites.reads;
	dwc_record_site(e, (uint32_t)(site - e->sites.site));
	return had_some == (e->sites.in_user > 0) ? 0 : dwc_replica_call_both(e, job_refresh_guest_debug);
}

/* Whether the traps cost more than they spare. With a frozen TSC a site is needed for elements so long that they meet a tick each time, and
 * a guest that reads the time often pays for it long after those. */
int dwc_sites_are_hot(const struct dwc_engine *e)
{
	return e->config.tsc_ratio && e->sites.reads - e->sites.reads_before >= e->sites.hot_reads;
}

/* Put the instructions of all sites back. They stay in the table, and are learned again where they are needed. Nothing may be pending at
 * the last committed state, which must be a checkpoint. */
int dwc_release_sites(struct dwc_engine *e)
{
	uint8_t original[DWC_LONGEST_INSTRUCTION];
	unsigned length;
	uint64_t gpa;
	int err = 0;

	DWC_ASSERT(e, e->phase == DWC_PHASE_BETWEEN && !e->log.count);
	e->sites.reads_before = e->sites.reads;
	for (uint32_t i = 0; i < e->sites.count && !err; i++)
		if ((length = dwc_site_original(e, i, &gpa, original)))
			err = dwc_memory_write(e, gpa, original, length);
	return err;
}

/* In a replay: whether there were sites in ring 3 when the element was recorded, whose traps are in guest memory. Returns -errno or 0. */
int dwc_set_user_traps(struct dwc_engine *e, int wanted)
{
	if (wanted == e->sites.in_user)
		return 0;
	e->sites.in_user = wanted;
	return dwc_replica_call(&e->replicas[0], job_refresh_guest_debug);
}

/* The instruction that a site's trap has replaced. Returns its length, or 0 if the guest has written something else there since. */
unsigned dwc_site_original(const struct dwc_engine *e, uint32_t number, uint64_t *gpa, uint8_t *out)
{
	const struct dwc_site *site = &e->sites.site[number];

	*gpa = site->gpa;
	memcpy(out, site->original, site->read.length);
	return memcmp(e->replicas[0].ram + site->gpa, trap_code(e, site->user), site->read.length) ? 0 : site->read.length;
}

/* XCR0 as it is now: the guest can have changed it since the checkpoint. */
static uint64_t enabled_registers(const struct dwc_engine *e)
{
	struct kvm_xcrs xcrs;

	if (dwc_ioctl(e->replicas[0].vcpu_fd, KVM_GET_XCRS, &xcrs) < 0 || !xcrs.nr_xcrs)
		return e->checkpoint.state.xcrs.xcrs[0].value;
	return xcrs.xcrs[0].value;
}

/* Supply the value that the instruction reads, and where it goes on. */
static void supply(struct dwc_engine *e, const struct dwc_insn *read, uint64_t rip)
{
	struct dwc_inputs *inputs = &e->inputs;

	e->sites.reads++;
	inputs->read = *read;
	inputs->next_rip = rip + read->length;
	inputs->value = inputs->aux = e->tsc.aux;
	switch (read->kind) {
	case DWC_READ_RDTSC: case DWC_READ_RDTSCP:
		inputs->value = inputs->site_tsc = dwc_tsc_next(e);
		break;
	case DWC_READ_RDRAND: case DWC_READ_RDSEED:
		if (getrandom(&inputs->value, sizeof inputs->value, GRND_NONBLOCK) < 0)
			inputs->value = dwc_tsc_next(e);
		break;
	case DWC_READ_XGETBV: /* report all enabled registers as in use, as XINUSE may (SDM 1 13.6) */
		inputs->value = enabled_registers(e);
		break;
	default: /* RDPID */
		break;
	}
}

/* Answer the committed exit if it is a site's trap. */
int dwc_site_answer(struct dwc_engine *e)
{
	const struct dwc_state *s = &e->replicas[0].state;
	const struct dwc_exit *x = &e->exit;
	int user = x->reason != KVM_EXIT_IO, past = x->reason == KVM_EXIT_DEBUG && e->config.icebp_rip_after;
	struct dwc_replica *a = &e->replicas[0];
	const struct dwc_site *site = user ? dwc_site_at(a, dwc_linear_rip(s) - (uint64_t)past, 1) : dwc_site_of_port(a);

	if (!site)
		return 0;
	supply(e, &site->read, s->regs.rip - (uint64_t)past);
	e->inputs.answer = user ? DWC_ANSWER_SITE_TRAP : DWC_ANSWER_SITE_PORT;
	return 1;
}

/* For an instruction that no trap can replace: both replicas are at the instruction that the last search found, and the next element
 * starts with its result instead of executing it. Returns 0, and does nothing, if they are not there: single steps may have ended
 * earlier. */
int dwc_pass_host_read(struct dwc_engine *e)
{
	struct dwc_replica *r = &e->replicas[0];
	struct dwc_insn insn;

	DWC_ASSERT(e, e->phase == DWC_PHASE_BETWEEN || e->phase == DWC_PHASE_INPUTS_CHOSEN);
	DWC_ASSERT(e, r->stage == DWC_STAGE_AT_COMMITTED);
	dwc_insn_at(r, dwc_linear_rip(&r->state), &insn);
	if (r->state.regs.rip != e->search.rip || insn.kind != e->search.read.kind)
		return 0;
	supply(e, &e->search.read, r->state.regs.rip);
	e->inputs.answer = DWC_ANSWER_SITE_TRAP;
	return 1;
}

/* The committed debug exception is the guest's own: pass it back. */
void dwc_reflect_debug_exception(struct dwc_engine *e)
{
	struct dwc_replica *r = &e->replicas[0];
	struct dwc_insn insn;

	e->inputs.answer = DWC_ANSWER_DEBUG;
	e->inputs.debug_payload = e->exit.info ^ DR6_ACTIVE_LOW;
	e->inputs.next_rip = r->state.regs.rip;
	/* an ICEBP of the guest's own is a trap: the RIP after it is pushed (vmx.c, handle_exception_nmi) */
	if (e->config.icebp_rip_after)
		return;
	dwc_insn_at(r, dwc_linear_rip(&r->state), &insn);
	if (insn.kind == DWC_INSN_ICEBP)
		e->inputs.next_rip += insn.length;
}

/* The same for an instruction that KVM could not emulate. Returns 0 if it is not an invalid opcode of ring 3. */
int dwc_reflect_undefined(struct dwc_engine *e)
{
	const struct dwc_state *s = &e->replicas[0].state;

	if (e->config.user_trap != DWC_USER_TRAP_SYSENTER || e->exit.info != KVM_INTERNAL_ERROR_EMULATION || s->sregs.ss.dpl != 3)
		return 0;
	e->inputs.answer = DWC_ANSWER_UNDEFINED;
	return 1;
}
