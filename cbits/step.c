/* Single steps, and the time sites that they find.
 *
 * RDTSC cannot be trapped on stock KVM. Where the replicas differ, one is stepped from the checkpoint
 * to the first RDTSC, which then is replaced by IN eax, imm8: two bytes as well, and an exit on every
 * KVM wherever CPL <= IOPL. The element ends there from then on, and EDX:EAX comes from the guest clock. */
#include "core.h"

#include <errno.h>
#include <string.h>

#define LONGEST 3 /* RDTSCP */

int dwc_set_stepping(struct dwc_replica *r, int on)
{
	struct kvm_guest_debug debug;

	memset(&debug, 0, sizeof debug);
	debug.control = on ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP : 0;
	return (int)dwc_ioctl(r->vcpu_fd, KVM_SET_GUEST_DEBUG, &debug);
}

static int translate(struct dwc_replica *r, uint64_t linear, uint64_t *gpa)
{
	struct kvm_translation t;

	memset(&t, 0, sizeof t);
	t.linear_address = linear;
	if (dwc_ioctl(r->vcpu_fd, KVM_TRANSLATE, &t) < 0 || !t.valid || t.physical_address >= r->engine->ram_bytes)
		return 0;
	*gpa = t.physical_address;
	return 1;
}

/* The page of code seen last: a walk at every step would double its cost. */
struct code_page {
	uint64_t linear, gpa;
	int valid;
};

static int code_gpa(struct dwc_replica *r, struct code_page *page, uint64_t linear, uint64_t *gpa)
{
	uint64_t start = linear & ~(uint64_t)(DWC_PAGE - 1);

	if (!page->valid || page->linear != start) {
		page->linear = start;
		page->valid = translate(r, start, &page->gpa);
	}
	*gpa = page->gpa + (linear - start);
	return page->valid;
}

static uint32_t time_read_length(struct dwc_replica *r, struct code_page *page, uint64_t linear)
{
	uint8_t code[LONGEST] = { 0 };
	uint64_t gpa;

	for (unsigned i = 0; i < LONGEST && code_gpa(r, page, linear + i, &gpa); i++)
		code[i] = r->ram[gpa];
	if (code[0] != 0x0f)
		return 0;
	if (code[1] == 0x31)
		return 2;
	return code[1] == 0x01 && code[2] == 0xf9 ? 3 : 0;
}

static int at_time_read(struct dwc_replica *r, struct code_page *page, struct dwc_search *s)
{
	uint64_t linear = r->state.regs.rip + r->state.sregs.cs.base;

	s->length = time_read_length(r, page, linear);
	return s->length && code_gpa(r, page, linear, &s->gpa);
}

static int job_find(struct dwc_replica *r)
{
	struct dwc_search *s = &r->engine->search;
	struct code_page page = { 0, 0, 0 };
	struct kvm_run *run = r->run;
	int err = 0;

	run->request_interrupt_window = 0;
	if (!r->engine->has_pending_io && at_time_read(r, &page, s))
		return 0;
	for (uint64_t step = 0; step < s->limit; step++) {
		long ran;

		/* POPF, IRET and exceptions of the guest disarm it */
		if ((err = dwc_set_stepping(r, 1)) < 0)
			break;
		while ((ran = dwc_ioctl(r->vcpu_fd, KVM_RUN, NULL)) == -EINTR || ran == -EAGAIN)
			run->immediate_exit = 0;
		if (ran < 0 || run->exit_reason != KVM_EXIT_DEBUG)
			break;
		dwc_state_get_synced(r, &r->state);
		if (at_time_read(r, &page, s))
			break;
		if (atomic_load(&r->engine->stop))
			break;
	}
	dwc_set_stepping(r, 0);
	return err;
}

/* Step a replica from the checkpoint (after a rollback) to the first RDTSC or RDTSCP, at most
 * search.limit instructions. It leaves traces in the guest: roll back again. */
int dwc_find_time_site(struct dwc_engine *e, int replica)
{
	struct dwc_replica *r = &e->replicas[replica];
	int err;

	e->search.length = 0;
	if ((err = dwc_replica_call(r, dwc_replica_feed)))
		return err;
	return dwc_replica_call(r, job_find);
}

/* If the committed exit is a trap of ours, answer it: a TSC of 1 GHz on the guest clock, never the
 * same twice. The guest may have put other code with the same port there since: look at the address. */
int dwc_time_site_answer(struct dwc_engine *e)
{
	const struct dwc_exit *x = &e->exit;
	const struct dwc_state *s = &e->replicas[0].state;
	uint64_t gpa, value;
	uint32_t low;

	if (!e->site_count || x->port != DWC_TIME_PORT || x->is_write || x->size != 4 || x->count != 1)
		return 0;
	if (!translate(&e->replicas[0], s->regs.rip + s->sregs.cs.base, &gpa))
		return 0;
	for (uint32_t i = 0; i < e->site_count; i++) {
		if (e->site_gpa[i] != gpa)
			continue;
		value = e->guest_ns + ++e->site_reads;
		low = (uint32_t)value;
		dwc_engine_answer(e, (const uint8_t *)&low, sizeof low);
		e->inputs.sets_rdx = 1;
		e->inputs.rdx = value >> 32;
		return 1;
	}
	return 0;
}
