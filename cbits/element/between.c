/* Between two elements: the device that the last one ended for, requests from outside, idle time. */
#include "element/between.h"

#include <linux/futex.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "host.h"
#include "pc/interrupts.h"
#include "pc/lapic.h"
#include "pc/pc.h"
#include "pc/power.h"
#include "pc/sent.h"
#include "pc/uart.h"
#include "record/record.h"
#include "sites/sites.h"
#include "status.h"
#include "vcpu/exit.h"
#include "vcpu/msrs.h"
#include "vcpu/points.h"

#define IDLE_SLICE_NS 5000000ull
#define DRAIN_ELEMENTS 256
#define NEWS_AT_ONCE 16

int dwc_is_stop_requested(const struct dwc_engine *e)
{
	return atomic_load(&e->requests.stop);
}

/* Let news of an epoll descriptor be requests for attention: its descriptors must be edge-triggered. */
void dwc_engine_watch(struct dwc_engine *e, int fd)
{
	e->requests.watches = 1;
	e->requests.watched = fd;
}

static int networks_have_news(const struct dwc_engine *e)
{
	struct epoll_event events[NEWS_AT_ONCE];

	return e->requests.watches && epoll_wait(e->requests.watched, events, NEWS_AT_ONCE, 0) > 0;
}

/* Wait, at most for `longest`. Without networks a request for attention ends it at once; with them their news do, since one system call
 * does not wait for both. A kick of this thread ends it early, and a stop is seen by the caller. */
static void await_attention(struct dwc_engine *e, const struct timespec *longest)
{
	struct pollfd news = { .fd = e->requests.watched, .events = POLLIN };

	if (e->requests.watches) {
		ppoll(&news, 1, longest, NULL);
		return;
	}
	atomic_store(&e->requests.sleeping, 1);
	syscall(SYS_futex, &e->requests.attention, FUTEX_WAIT_PRIVATE, 0, longest, NULL, 0);
	atomic_store(&e->requests.sleeping, 0);
}

/* After HLT only an interrupt lets the guest go on. The virtual clock jumps to the next timer interrupt. With the host's clock, or
 * if input may come, it is waited for: in short pieces, so that requests are seen. So is the power button, by a guest that has
 * no timer. */
static int idle(struct dwc_engine *e)
{
	struct timespec pause = { 0, IDLE_SLICE_NS };
	uint64_t deadline, from_ns;

	dwc_pc_tick(&e->pc, e->clock.guest_ns);
	if (dwc_pc_interrupt_pending(&e->pc)) {
		e->clock.halted = 0;
		return 0;
	}
	deadline = dwc_pc_deadline(&e->pc, e->clock.guest_ns);
	if (deadline == UINT64_MAX && !e->clock.idle_waits && !dwc_power_button_enabled(&e->pc.power))
		return DWC_STOP_IDLE;
	if (deadline != UINT64_MAX && !e->clock.host_base_ns && !e->clock.idle_waits) {
		if (deadline > e->clock.guest_ns)
			e->clock.guest_ns = deadline;
		return 0;
	}
	if (deadline - e->clock.guest_ns < IDLE_SLICE_NS)
		pause.tv_nsec = (long)(deadline - e->clock.guest_ns);
	dwc_account(e, DWC_AT_IDLE);
	from_ns = dwc_now_ns();
	await_attention(e, &pause);
	dwc_account(e, DWC_AT_BETWEEN);
	if (e->clock.host_base_ns)
		e->clock.guest_ns = dwc_now_ns() - e->clock.host_base_ns;
	else
		e->clock.guest_ns += dwc_now_ns() - from_ns;
	return 0;
}

/* Whether a serial port can take more of the input that waits for it. */
static int input_has_room(const struct dwc_engine *e)
{
	for (unsigned i = 0; e->requests.backlog >> i; i++)
		if (e->requests.backlog >> i & 1 && !e->pc.uarts[i].rx_count)
			return 1;
	return 0;
}

/* Requests from other threads, and what has to be done from time to time. */
static int look_outside(struct dwc_engine *e)
{
	if (dwc_is_stop_requested(e))
		return DWC_STOP_REQUESTED;
	if (atomic_exchange(&e->requests.attention, 0) || input_has_room(e) || networks_have_news(e)) {
		atomic_store(&e->requests.soon, 0);
		return DWC_STOP_ATTENTION;
	}
	if (dwc_sent_wants_drain(&e->pc.sent))
		return DWC_STOP_CONSOLE;
	if (dwc_record_wants_drain(e))
		return DWC_STOP_RECORDED;
	/* output without a newline: a prompt before the guest waits; rows of dots, from time to time */
	if (e->pc.sent.count && (e->clock.halted || !(e->stats.committed % DRAIN_ELEMENTS)))
		return DWC_STOP_CONSOLE;
	if ((e->requests.elements_limit && e->stats.committed >= e->requests.elements_limit) ||
	    (e->requests.until_ns && e->clock.guest_ns >= e->requests.until_ns))
		return DWC_STOP_ELEMENT_LIMIT;
	return 0;
}

/* Returns when the next element can start, or with an enum dwc_stop. */
int dwc_between_elements(struct dwc_engine *e)
{
	int stop;

	do
		if ((stop = look_outside(e)) || (e->clock.halted && (stop = idle(e))))
			return stop;
	while (e->clock.halted);
	return 0;
}

/* CR8 and the task priority of the local APIC are one register (SDM 3A 11.8.6), which the element or this access may have changed. */
static int serve_memory(struct dwc_engine *e)
{
	struct kvm_run *run = e->replicas[0].run;
	int served;

	dwc_lapic_set_cr8(&e->pc.lapic, (unsigned)run->cr8);
	served = dwc_pc_mmio(&e->pc, &e->exit, e->inputs.io_data, e->clock.guest_ns);
	run->cr8 = e->pc.lapic.tpr >> 4;
	return served;
}

/* Let a device in C serve the committed exit. DWC_STOP_EXIT: no device in C can. */
int dwc_act(struct dwc_engine *e)
{
	const struct dwc_exit *x = &e->exit;

	switch (x->reason) {
	case KVM_EXIT_IO:
		if (dwc_site_answer(e))
			return 0;
		return dwc_pc_io(&e->pc, x, e->inputs.io_data, e->clock.guest_ns) ? 0 : DWC_STOP_EXIT;
	case KVM_EXIT_MMIO:
		return serve_memory(e) ? 0 : DWC_STOP_EXIT;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		dwc_msr_serve(e);
		return 0;
	case KVM_EXIT_DEBUG:
		if ((e->points.hits = dwc_points_in_dr6(e, x->info)))
			return DWC_STOP_BREAKPOINT;
		if (!dwc_site_answer(e))
			dwc_reflect_debug_exception(e);
		return 0;
	case KVM_EXIT_INTERNAL_ERROR:
		return dwc_site_answer(e) || dwc_reflect_undefined(e) ? 0 : DWC_STOP_EXIT;
	case KVM_EXIT_HLT:
		e->clock.halted = e->replicas[0].run->if_flag;
		return e->clock.halted ? 0 : DWC_STOP_EXIT;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_INTR: /* ended by an overflow or by single steps */
	case KVM_EXIT_SET_TPR: /* CR8 fell: a waiting interrupt may be possible now */
		return 0;
	default:
		return DWC_STOP_EXIT;
	}
}
