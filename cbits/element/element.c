/* The life of an element: inputs, e1 and e2, compare, commit, device. Python takes over when the
 * two runs differ, when no natural end comes, and for devices that are not in C. */
#include "element/element.h"

#include <linux/kvm.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "element/align.h"
#include "element/commit.h"
#include "element/inplace.h"
#include "element/run.h"
#include "element/slice.h"
#include "engine.h"
#include "host.h"
#include "memory/pages.h"
#include "memory/scrub.h"
#include "pc/interrupts.h"
#include "pc/lapic.h"
#include "pc/platform.h"
#include "pc/uart.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sites/sites.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/exit.h"
#include "vcpu/msrs.h"
#include "vcpu/tsc.h"

#define NS_PER_S 1000000000ull
#define IDLE_SLICE_NS 5000000ull
#define WAITING_ELEMENTS 32
#define DRAIN_ELEMENTS 1024
#define LONGEST_WAIT_NS 64000000000ull /* a kernel that unpacks itself has no exit for as long as that takes */

/* The element starts with an exception: KVM takes no interrupt or NMI beside it. */
static int starts_with_exception(const struct dwc_engine *e)
{
	if (e->strategy == DWC_IN_PLACE) /* the answer has been given already (dwc_inplace_settle) */
		return e->checkpoint.events.exception.pending;
	return e->inputs.answer == DWC_ANSWER_DEBUG || e->inputs.answer == DWC_ANSWER_UNDEFINED ||
	       e->inputs.answer == DWC_ANSWER_REFUSED;
}

/* Inputs are chosen once an element; a retry gets the same ones. */
static void choose_inputs(struct dwc_engine *e)
{
	int pending, alone = e->fragment || starts_with_exception(e);

	dwc_tsc_choose(e);
	dwc_platform_tick(e);
	dwc_lapic_set_cr8(&e->lapic, (unsigned)e->replicas[0].run->cr8);
	e->inputs.cr8 = e->lapic.tpr >> 4;
	pending = dwc_interrupt_pending(e);
	e->inputs.vector = -1;
	e->inputs.window = 0;
	e->inputs.nmi = e->lapic.nmi && !alone;
	e->lapic.nmi &= !e->inputs.nmi;
	if (!pending || alone || e->inputs.nmi) {
		e->waiting = 0;
		return;
	}
	if (e->replicas[0].run->ready_for_interrupt_injection &&
	    (e->strategy == DWC_OFF || e->replicas[1].run->ready_for_interrupt_injection))
		e->inputs.vector = dwc_interrupt_acknowledge(e);
	else if (e->strategy == DWC_OFF || e->exact_windows)
		e->inputs.window = 1;
	else
		e->waiting++;
}

/* How long until somebody has to be let in: the next timer interrupt, at least the patience, at most a second
 * (input from outside). */
static uint64_t time_until_due(struct dwc_engine *e)
{
	uint64_t deadline = dwc_platform_deadline(e), left;

	if (dwc_interrupt_pending(e))
		return e->patience_ns;
	if (deadline == UINT64_MAX)
		return NS_PER_S + e->patience_ns;
	left = deadline > e->guest_ns ? deadline - e->guest_ns : 0;
	if (left > NS_PER_S)
		left = NS_PER_S;
	left *= e->host_base_ns ? 1 : e->clock_divisor;
	return left > e->patience_ns ? left : e->patience_ns;
}

/* What ends by time is thrown away, and would never be done if it needs longer: now and then it gets more. */
static uint64_t time_limit(struct dwc_engine *e)
{
	uint64_t limit = time_until_due(e), longest = limit > LONGEST_WAIT_NS ? limit : LONGEST_WAIT_NS;

	return limit * e->patience_factor < longest ? limit * e->patience_factor : longest;
}

/* Both ended, one of them or both by its counter. */
static int align(struct dwc_engine *e, int first, int second)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	uint64_t ended_ns = a->ended_ns, started_ns = a->started_ns;
	int status;

	if (!e->rearm && (status = dwc_slice_measure(e)))
		return status;
	e->rearm = 1;
	if (first && second)
		status = dwc_align(e);
	else
		status = dwc_align_to_natural(first ? a : b, e->budget + DWC_LEAST_BUDGET);
	if (!status && e->agreed)
		for (int i = 0; i < 2; i++)
			dwc_replica_ends_by(&e->replicas[i], KVM_EXIT_INTR);
	else if (!status)
		status = dwc_replica_call_both(e, dwc_pages_harvest);
	/* the time of the way to the common point is not the guest's */
	a->ended_ns = ended_ns;
	a->started_ns = started_ns;
	return status;
}

static int execute(struct dwc_engine *e)
{
	struct dwc_replica *a = &e->replicas[0], *b = &e->replicas[1];
	int first, second;

	e->agreed = 0;
	if ((first = dwc_slice_plan(e)))
		return first;
	a->limit_ns = b->limit_ns = e->counting ? 0 : time_limit(e);
	if (e->strategy == DWC_IN_PLACE)
		return dwc_inplace_execute(e);
	if (e->strategy == DWC_PARALLEL)
		dwc_replica_post(b, dwc_job_element);
	first = dwc_job_element(a);
	e->stats.first_run_ns += dwc_ran_ns(a);
	if (e->strategy == DWC_OFF)
		return first;
	if (e->strategy == DWC_PARALLEL) {
		uint64_t waited_from = dwc_now_ns();

		second = dwc_replica_wait(b);
		e->stats.second_run_ns += dwc_now_ns() - waited_from;
	} else {
		if (first && first != DWC_SLICE_END)
			return first;
		if (first && e->arm) { /* e2 is to end where e1 has */
			if ((second = dwc_counter_read(a, &e->budget)))
				return second;
			e->budget = dwc_budget_to_end_at(e, e->budget);
		}
		second = dwc_replica_call(b, dwc_job_element);
		e->stats.second_run_ns += dwc_ran_ns(b);
	}
	if (first < 0 || second < 0)
		return first < 0 ? first : second;
	if (first == DWC_STOPPED || second == DWC_STOPPED)
		return DWC_STOPPED;
	dwc_slice_note(e);
	if (first == DWC_SLICE_END || second == DWC_SLICE_END)
		return align(e, first, second);
	if (first == DWC_SLICE_UP && second == DWC_SLICE_UP)
		return DWC_SLICE_UP;
	if (first == DWC_SLICE_UP)
		return dwc_extend(e, a);
	if (second == DWC_SLICE_UP)
		return dwc_extend(e, b);
	return 0;
}

/* After HLT: only an interrupt ends it. The virtual clock jumps to the next timer interrupt; it is
 * waited for with the host clock, and where somebody sits at the console. Waits in short pieces, so
 * that the caller sees requests. */
static int idle(struct dwc_engine *e)
{
	struct timespec pause = { 0, IDLE_SLICE_NS };
	uint64_t deadline;

	dwc_platform_tick(e);
	if (dwc_interrupt_pending(e)) {
		e->halted = 0;
		return 0;
	}
	deadline = dwc_platform_deadline(e);
	if (deadline == UINT64_MAX && !e->idle_waits)
		return DWC_IDLE;
	if (!e->host_base_ns && !e->idle_waits) {
		if (deadline > e->guest_ns)
			e->guest_ns = deadline;
		return 0;
	}
	if (deadline - e->guest_ns < IDLE_SLICE_NS)
		pause.tv_nsec = (long)(deadline - e->guest_ns);
	nanosleep(&pause, NULL);
	if (e->host_base_ns)
		e->guest_ns = dwc_now_ns() - e->host_base_ns;
	else
		e->guest_ns += (uint64_t)pause.tv_nsec;
	return 0;
}

static int act(struct dwc_engine *e)
{
	const struct dwc_exit *x = &e->exit;

	switch (x->reason) {
	case KVM_EXIT_IO:
		if (dwc_site_answer(e))
			return 0;
		if (!dwc_platform_io(e, x, e->inputs.io_data))
			return DWC_EXIT_PYTHON;
		return dwc_uart_wants_drain(&e->uart) ? DWC_CONSOLE : 0;
	case KVM_EXIT_MMIO:
		return dwc_platform_mmio(e, x, e->inputs.io_data) ? 0 : DWC_EXIT_PYTHON;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		dwc_msr_serve(e);
		return 0;
	case KVM_EXIT_DEBUG:
		if (!dwc_site_answer(e))
			dwc_reflect_debug_exception(e);
		return 0;
	case KVM_EXIT_INTERNAL_ERROR:
		return dwc_site_answer(e) || dwc_reflect_undefined(e) ? 0 : DWC_EXIT_PYTHON;
	case KVM_EXIT_HLT:
		e->halted = e->replicas[0].run->if_flag;
		return e->halted ? 0 : DWC_EXIT_PYTHON;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_INTR: /* the slice was used up */
	case KVM_EXIT_SET_TPR: /* CR8 fell: what waits may go now */
		return 0;
	default:
		return DWC_EXIT_PYTHON;
	}
}

static int boundary(struct dwc_engine *e)
{
	if (atomic_load(&e->stop))
		return DWC_STOPPED;
	if (atomic_exchange(&e->attention, 0) || (e->has_backlog && !e->uart.rx_count))
		return DWC_ATTENTION;
	/* what has no newline yet: a prompt, before the guest waits; dots, now and then */
	if (e->uart.tx_count && (e->halted || !(e->stats.committed % DRAIN_ELEMENTS)))
		return DWC_CONSOLE;
	if (e->elements_limit && e->stats.committed >= e->elements_limit)
		return DWC_ELEMENT_LIMIT;
	return 0;
}

/* Everything before the two runs: requests from outside, idle time, inputs. */
static int prepare(struct dwc_engine *e)
{
	int status;

	if (e->strategy == DWC_IN_PLACE && (status = dwc_inplace_settle(e)))
		return status;
	do {
		if ((status = boundary(e)) || (e->halted && (status = idle(e))))
			return status;
	} while (e->halted);
	if (!e->retrying) {
		if (e->scrub_bytes_per_s && (status = dwc_scrub(e)))
			return status;
		choose_inputs(e);
	}
	if (e->waiting > WAITING_ELEMENTS) {
		e->waiting = 0;
		return DWC_WAITING;
	}
	if (e->stats.committed < e->visit_from || e->start_visited)
		return 0;
	e->start_visited = e->retrying = 1; /* the inputs stay */
	return DWC_ELEMENT_START;
}

/* Run to the end of the element, and no further. */
static int run_both(struct dwc_engine *e)
{
	int status = execute(e);

	if (status == DWC_BETWEEN_RUNS)
		return status;
	e->retrying = e->start_visited = 0;
	if (status || e->stats.committed < e->visit_from)
		return status;
	e->at_end = 1;
	return DWC_ELEMENT_END;
}

static int finish(struct dwc_engine *e)
{
	uint64_t from;
	int status;

	e->at_end = 0;
	if ((status = dwc_engine_commit(e)))
		return status;
	from = dwc_now_ns();
	status = act(e);
	e->stats.device_ns += dwc_now_ns() - from;
	return status;
}

int dwc_engine_run(struct dwc_engine *e)
{
	int status;

	for (;;) {
		status = e->at_end ? 0 : prepare(e);
		if (!status && !e->at_end)
			status = run_both(e);
		if (!status)
			status = finish(e);
		if (status == DWC_SLICE_UP && e->strategy == DWC_OFF) {
			e->has_pending_io = 0; /* any point is an end where nothing has to match */
			dwc_advance_clock(e, dwc_ran_ns(&e->replicas[0]));
		} else if (status) {
			return status;
		}
	}
}
