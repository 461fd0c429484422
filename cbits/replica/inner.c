/* Inner exits: the PC's devices in C depend on nothing but their state and the guest clock, which stands still in an element. So each
 * replica has its own copy of them, and an exit that they can answer ends no element: the replica goes on with the answer, on its own
 * thread. What leaves the machine (bytes at the serial port) waits in the copy until the element is committed; everything that
 * reaches Python, and an interrupt that becomes pending, ends the element. docs/decisions/0009-inner-exits.md
 *
 * So do sites in ring 0 that read the time (sites/sites.c): one time for all of an element. */
#include "replica/inner.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "engine.h"
#include "pc/interrupts.h"
#include "pc/lapic.h"
#include "pc/pc.h"
#include "pc/sent.h"
#include "replica/clock.h"
#include "replica/hostreads.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sum.h"
#include "vcpu/exit.h"
#include "vcpu/insn.h"

#define ACCESS_NS 1000

/* At the start of an element's run: no inner exits yet. */
void dwc_inner_begin(struct dwc_replica *r)
{
	r->inner.count = r->inner.reads = 0;
	r->inner.flow = 0;
	r->inner.pc = NULL;
	r->inner.stopped = 0;
}

/* Where the run is to end at the latest, if at an exit that could be an inner one. */
void dwc_inner_plan(struct dwc_replica *r, uint32_t limit, uint64_t most_ns)
{
	r->inner.limit = r->engine->config.end_at_io || r->engine->requests.by_instruction ? 1 : limit;
	r->inner.most_ns = most_ns;
}

/* The devices as at the start of the element: of the current one, or of the one that is replayed. */
static const struct dwc_pc *start_of_element(const struct dwc_engine *e)
{
	return e->log.replayed ? &e->log.replayed->inner.pc : &e->pc;
}

/* The guest time that the inner exits so far have taken, and the exit after them. */
static uint64_t accesses_ns(const struct dwc_replica *r)
{
	return (r->inner.count + 1ull) * ACCESS_NS;
}

/* By how much the guest clock has to move after the element for its inner exits. */
uint64_t dwc_inner_ns(const struct dwc_replica *r)
{
	return r->inner.count ? accesses_ns(r) : 0;
}

/* The time that devices see. The guest clock stands still in an element, but programs expect that accesses to devices take time (a
 * port of an ISA device about 1 us): so each inner exit takes as long, in both runs. Under `off` the clock moves on. */
static uint64_t clock_of_devices(const struct dwc_replica *r)
{
	const struct dwc_engine *e = r->engine;

	if (!e->protects)
		return dwc_clock_after(e, dwc_ran_ns(r));
	return (e->log.replayed ? e->log.replayed->inner.now_ns : e->clock.guest_ns) + accesses_ns(r);
}

/* The replica's own devices, to be changed. */
struct dwc_pc *dwc_inner_pc(struct dwc_replica *r)
{
	if (!r->inner.pc) {
		r->inner.pc = &r->inner.pcs[0];
		dwc_pc_copy(r->inner.pc, start_of_element(r->engine));
	}
	return r->inner.pc;
}

/* Let devices serve the access, and bring their lines up to date. Returns 0 if they cannot. */
static int serve(struct dwc_replica *r, struct dwc_pc *pc, uint8_t *data, uint64_t now_ns)
{
	const struct dwc_exit *x = &r->exit;
	int served;

	dwc_lapic_set_cr8(&pc->lapic, (unsigned)r->run->cr8); /* one register with its task priority (SDM 3A 11.8.6) */
	served = (x->reason == KVM_EXIT_IO ? dwc_pc_io : dwc_pc_mmio)(pc, x, data, now_ns);
	if (served)
		dwc_pc_tick(pc, now_ns);
	return served;
}

/* Whether the element has to end before this access: its effect does not stay in the devices. An interrupt that cannot be taken yet
 * is no reason if a window was asked for, as the open window ends the element. */
static int has_effects(const struct dwc_replica *r, const struct dwc_pc *pc)
{
	if (pc->lapic.nmi || dwc_sent_is_full(&pc->sent))
		return 1;
	return dwc_pc_interrupt_pending(pc) && (!r->engine->inputs.window || r->run->ready_for_interrupt_injection);
}

static void give_answer(struct dwc_replica *r, const uint8_t *data, uint64_t length)
{
	if (r->exit.reason == KVM_EXIT_IO)
		memcpy((uint8_t *)r->run + r->run->io.data_offset, data, length);
	else
		memcpy(r->run->mmio.data, data, sizeof r->run->mmio.data);
}

static int is_over(const struct dwc_replica *r)
{
	return r->inner.count + 1 >= r->inner.limit || (r->inner.most_ns && dwc_ran_ns(r) >= r->inner.most_ns);
}

/* The exit was answered with `data`, at this time of the devices. */
static void note(struct dwc_replica *r, const uint8_t *data, uint64_t length, uint64_t clock_ns)
{
	struct dwc_inner *inner = &r->inner;
	const struct dwc_exit *x = &r->exit;

	inner->flow = dwc_sum(inner->flow, x, offsetof(struct dwc_exit, data));
	inner->flow = dwc_sum(inner->flow, data, length);
	inner->count++;
	memcpy(&inner->before, x, offsetof(struct dwc_exit, data));
	inner->answered_ns = dwc_ran_ns(r);
	inner->clock_ns = clock_ns;
}

/* Let a device answer. It is tried with a copy of the devices, so that an exit that ends the element leaves no trace. */
static int ask_device(struct dwc_replica *r)
{
	struct dwc_inner *inner = &r->inner;
	const struct dwc_exit *x = &r->exit;
	const struct dwc_pc *now = inner->pc ? inner->pc : start_of_element(r->engine);
	struct dwc_pc *next = inner->pc == &inner->pcs[0] ? &inner->pcs[1] : &inner->pcs[0];
	uint64_t length = dwc_exit_length(x), clock_ns;
	uint8_t data[DWC_IO_BYTES];

	if ((x->reason != KVM_EXIT_IO && x->reason != KVM_EXIT_MMIO) || (uint64_t)x->size * x->count > sizeof data)
		return 0;
	memset(data, 0, length < sizeof r->run->mmio.data ? sizeof r->run->mmio.data : length);
	clock_ns = clock_of_devices(r);
	dwc_pc_copy(next, now);
	if (!serve(r, next, data, clock_ns) || has_effects(r, next))
		return 0;
	if (x->reason == KVM_EXIT_MMIO)
		r->run->cr8 = next->lapic.tpr >> 4;
	note(r, x->is_write ? x->data : data, length, clock_ns);
	if (!x->is_write)
		give_answer(r, data, length);
	inner->pc = next;
	return 1;
}

/* The site at whose trap the replica stands, if it reads the time, which is the same throughout an element. */
static const struct dwc_site *time_site(struct dwc_replica *r)
{
	const struct dwc_site *site = dwc_site_of_port(r);

	return site && (site->read.kind == DWC_READ_RDTSC || site->read.kind == DWC_READ_RDTSCP) ? site : NULL;
}

/* Let the instruction of a site read. The IN is finished by the next KVM_RUN, which sets EAX, as RDTSC does, and goes past it. Before
 * that it takes the other registers from the run page, although the IN is pending: kvm_arch_vcpu_ioctl_run() does so for the
 * backdoor of VMware, whose port changes registers, too. */
static void read_time(struct dwc_replica *r, const struct dwc_insn *read)
{
	const struct dwc_inputs *inputs = &r->engine->inputs;
	struct kvm_regs *regs = &r->run->s.regs.regs;

	dwc_write_read(regs, read, inputs->site_tsc, inputs->aux);
	r->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	memcpy((uint8_t *)r->run + r->run->io.data_offset, &regs->rax, r->exit.size);
	note(r, (const uint8_t *)&inputs->site_tsc, sizeof inputs->site_tsc, clock_of_devices(r));
	r->inner.reads++;
}

/* Answer the exit at which the replica stands. Returns 1 if it can run on; 0: this exit ends the element, and its device has not been
 * asked. */
static int answer(struct dwc_replica *r)
{
	const struct dwc_site *site = time_site(r);

	if (!site)
		return ask_device(r);
	read_time(r, &site->read);
	return 1;
}

/* After an exit: returns 1 if it is an inner one, which is answered; 0: it ends the run. */
int dwc_inner_pass(struct dwc_replica *r)
{
	r->inner.stopped = is_over(r);
	return !r->inner.stopped && answer(r);
}

/* The same for a run that has stopped at an exit although it could have been an inner one. */
int dwc_inner_go_on(struct dwc_replica *r)
{
	r->inner.stopped = 0;
	return answer(r);
}

/* The limit with which a replica ends where the other one has ended. */
uint32_t dwc_inner_limit_to_meet(const struct dwc_replica *other)
{
	return other->inner.stopped ? other->inner.count + 1 : DWC_NO_LIMIT;
}

/* The limit with which a run ends where the one that has come further has ended. */
uint32_t dwc_inner_limit_of_both(const struct dwc_engine *e)
{
	uint32_t a = e->replicas[0].inner.count, b = e->replicas[1].inner.count;

	return (a > b ? a : b) + 1;
}

/* The state of replica A's devices becomes that of the machine. */
void dwc_inner_commit(struct dwc_engine *e)
{
	const struct dwc_inner *inner = &e->replicas[0].inner;

	if (inner->pc)
		dwc_pc_copy(&e->pc, inner->pc);
	e->stats.inner_exits += inner->count;
	e->sites.reads += inner->reads;
	dwc_inner_begin(&e->replicas[0]);
	dwc_inner_begin(&e->replicas[1]);
}

/* Whether both have had the same inner exits, and their devices have the same state. */
int dwc_inner_same(const struct dwc_replica *a, const struct dwc_replica *b)
{
	const struct dwc_pc *start = start_of_element(a->engine);

	if (a->inner.count != b->inner.count || a->inner.flow != b->inner.flow)
		return 0;
	return (!a->inner.pc && !b->inner.pc) ||
	       dwc_pc_is_same(a->inner.pc ? a->inner.pc : start, b->inner.pc ? b->inner.pc : start);
}
