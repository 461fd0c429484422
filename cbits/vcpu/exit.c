/* Exits: what is kept of a return of KVM_RUN, to be compared and logged. */
#include "vcpu/exit.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "replica/replica.h"

#define MMIO_PART 8 /* bytes that one exit transfers at most; parts also end at page boundaries */

/* Replace the exit by another reason: the replica was brought to this point by alignment or single steps. */
void dwc_replica_ends_by(struct dwc_replica *r, uint32_t reason)
{
	memset(&r->exit, 0, offsetof(struct dwc_exit, data));
	r->exit.reason = reason;
	r->stage = DWC_STAGE_RAN;
}

/* Describe the exit with which KVM_RUN returned. */
void dwc_describe_exit(struct dwc_replica *r)
{
	struct kvm_run *run = r->run;
	struct dwc_exit *x = &r->exit;
	uint64_t length;

	memset(x, 0, offsetof(struct dwc_exit, data));
	x->reason = run->exit_reason;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		x->is_write = run->io.direction == KVM_EXIT_IO_OUT;
		x->size = run->io.size;
		x->port = run->io.port;
		x->count = run->io.count;
		length = (uint64_t)x->size * x->count;
		if (x->is_write && length <= sizeof x->data)
			memcpy(x->data, (uint8_t *)run + run->io.data_offset, length);
		break;
	case KVM_EXIT_MMIO:
		x->is_write = run->mmio.is_write;
		x->size = (uint8_t)run->mmio.len;
		x->count = 1;
		x->gpa = run->mmio.phys_addr;
		if (x->is_write && x->size <= sizeof run->mmio.data) /* the bytes after its end are old ones */
			memcpy(x->data, run->mmio.data, x->size);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		x->is_write = run->exit_reason == KVM_EXIT_X86_WRMSR;
		x->size = sizeof run->msr.data;
		x->count = 1;
		x->gpa = run->msr.index;
		if (x->is_write)
			memcpy(x->data, &run->msr.data, sizeof run->msr.data);
		break;
	case KVM_EXIT_DEBUG:
		x->info = run->debug.arch.dr6;
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		x->info = run->internal.suberror;
		break;
	case KVM_EXIT_FAIL_ENTRY:
		x->info = run->fail_entry.hardware_entry_failure_reason;
		break;
	default:
		break;
	}
}

/* The number of bytes of its data. */
uint64_t dwc_exit_length(const struct dwc_exit *x)
{
	uint64_t length = (uint64_t)x->size * x->count;

	return length < sizeof x->data ? length : sizeof x->data;
}

void dwc_copy_exit(struct dwc_exit *to, const struct dwc_exit *from)
{
	memcpy(to, from, offsetof(struct dwc_exit, data) + dwc_exit_length(from));
}

int dwc_same_exit(const struct dwc_exit *a, const struct dwc_exit *b)
{
	if (memcmp(a, b, offsetof(struct dwc_exit, data)))
		return 0;
	return !a->is_write || !memcmp(a->data, b->data, dwc_exit_length(a));
}

/* Whether the exit's instruction is unfinished: RIP is before it, and it will exit again from there. KVM's emulator
 * finishes a write to MMIO before it exits (x86_emulate_instruction() in x86.c). */
int dwc_finishes_later(const struct dwc_engine *e, const struct dwc_exit *x)
{
	if (x->reason == KVM_EXIT_IO)
		return !(x->is_write && e->config.out_rip_after);
	return (x->reason == KVM_EXIT_MMIO && !x->is_write) || dwc_is_msr(x);
}

int dwc_is_msr(const struct dwc_exit *x)
{
	return x->reason == KVM_EXIT_X86_RDMSR || x->reason == KVM_EXIT_X86_WRMSR;
}

/* Whether a device or the VMM has to answer it. */
int dwc_is_io(const struct dwc_exit *x)
{
	return x->reason == KVM_EXIT_IO || x->reason == KVM_EXIT_MMIO || dwc_is_msr(x);
}

/* Whether a replay can repeat this end. Only ends that occur at the same instruction by themselves can be repeated;
 * all others (an interrupt window, an overflow) become checkpoints. */
int dwc_replayable(const struct dwc_exit *x)
{
	return dwc_is_io(x) || x->reason == KVM_EXIT_HLT || x->reason == KVM_EXIT_DEBUG || x->reason == KVM_EXIT_SET_TPR ||
	       x->reason == KVM_EXIT_INTERNAL_ERROR;
}

/* Whether a rollback can return to this exit. No, if KVM's emulator is in the middle of an instruction: that state cannot be
 * saved. A part of a long memory-mapped write can be followed by another one (RIP has moved on already), and the second part
 * of a long read occurs again only after the first. */
int dwc_returnable(const struct dwc_exit *x, const struct dwc_exit *before)
{
	if (x->reason != KVM_EXIT_MMIO)
		return 1;
	if (x->is_write)
		return x->size < MMIO_PART && (x->gpa + x->size) % DWC_PAGE;
	return before->reason != KVM_EXIT_MMIO || before->is_write || before->gpa + before->size != x->gpa;
}
