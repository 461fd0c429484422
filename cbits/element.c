/* The life of an element: inputs, e1 and e2, compare, commit, device. Python takes over when the
 * two runs differ, when no natural end comes, and for devices that are not in C. */
#include "core.h"

#include <errno.h>
#include <string.h>

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define IDLE_SLICE_NS 5000000ull
#define WAITING_ELEMENTS 32
#define REPLAY_NS (10 * NS_PER_S) /* no logged element took longer than the patience */
#define DRAIN_ELEMENTS 1024
#define HANG_NS (5 * NS_PER_S) /* a host's CPU can be away for a second */
#define REPLAY_TRIES 64

static struct dwc_replica *replica_a(struct dwc_engine *e) { return &e->replicas[0]; }
static struct dwc_replica *replica_b(struct dwc_engine *e) { return &e->replicas[1]; }

static int both(struct dwc_engine *e, int (*job)(struct dwc_replica *))
{
	int err = dwc_replica_call(replica_a(e), job);

	return err ? err : dwc_replica_call(replica_b(e), job);
}

static int job_continue(struct dwc_replica *r)
{
	int status = dwc_replica_run(r, r->limit_ns);

	if (status == 0 && r->engine->strategy != DWC_OFF)
		status = dwc_pages_harvest(r);
	return status;
}

/* A slice starts: no element is to last longer than one and a half, whatever the counter says. */
static int arm(struct dwc_replica *r)
{
	int err = dwc_counter_arm(r, r->engine->budget);

	r->most_ns = r->engine->slice_ns * 3 / 2;
	return err ? err : dwc_replica_kick_after(r, r->most_ns);
}

static int job_element(struct dwc_replica *r)
{
	int err;

	if (r->engine->arm && (err = arm(r)))
		return err;
	r->started_ns = dwc_now_ns();
	r->tick_crossed = 0;
	if ((err = dwc_replica_feed(r)))
		return err;
	return job_continue(r);
}

static void advance_clock(struct dwc_engine *e, uint64_t ran_ns)
{
	if (e->host_base_ns)
		e->guest_ns = dwc_now_ns() - e->host_base_ns;
	else
		e->guest_ns += ran_ns / e->clock_divisor;
}

/* Inputs are chosen once an element; a retry gets the same ones. */
static void choose_inputs(struct dwc_engine *e)
{
	int pending;

	dwc_tsc_choose(e);
	dwc_platform_tick(e);
	pending = dwc_pic_pending(&e->pic);
	e->inputs.vector = -1;
	e->inputs.window = 0;
	if (!pending) {
		e->waiting = 0;
		return;
	}
	if (replica_a(e)->run->ready_for_interrupt_injection &&
	    (e->strategy == DWC_OFF || replica_b(e)->run->ready_for_interrupt_injection))
		e->inputs.vector = dwc_pic_acknowledge(&e->pic);
	else if (e->strategy == DWC_OFF || e->exact_windows)
		e->inputs.window = 1;
	else
		e->waiting++;
}

static int measure_rate(struct dwc_engine *e)
{
	uint64_t count;
	int err = dwc_counter_read(replica_a(e), &count);

	if (!err && e->slice_used_ns)
		e->events_per_ms = (e->events_per_ms + count * NS_PER_MS / e->slice_used_ns) / 2;
	return err;
}

/* A slice is counted over several elements, so that a short one costs no system call: the counters are armed
 * again once half of it is used. The budget follows what was counted in that time. */
static int plan_slice(struct dwc_engine *e)
{
	int err;

	e->arm = 0;
	if (!e->counting || (!e->rearm && e->slice_used_ns < e->slice_ns / 2))
		return 0;
	if (!e->rearm && (err = measure_rate(e)))
		return err;
	e->budget = e->events_per_ms * e->slice_ns / NS_PER_MS;
	if (e->budget < DWC_LEAST_BUDGET)
		e->budget = DWC_LEAST_BUDGET;
	e->slice_events = e->budget;
	e->arm = 1;
	e->rearm = 0;
	e->slice_used_ns = 0;
	return 0;
}

/* How long the element may run before somebody has to be let in: until the next timer interrupt,
 * at least the patience, at most a second (input from outside). */
static uint64_t time_limit(struct dwc_engine *e)
{
	uint64_t deadline = dwc_platform_deadline(e), left;

	if (dwc_pic_pending(&e->pic))
		return e->patience_ns;
	if (deadline == UINT64_MAX)
		return NS_PER_S + e->patience_ns;
	left = deadline > e->guest_ns ? deadline - e->guest_ns : 0;
	if (left > NS_PER_S)
		left = NS_PER_S;
	left *= e->host_base_ns ? 1 : e->clock_divisor;
	return left > e->patience_ns ? left : e->patience_ns;
}

/* One replica reached a natural end and the other did not yet: it must, within generous time. */
static int extend(struct dwc_engine *e, struct dwc_replica *r)
{
	int status;

	r->limit_ns = 8 * r->limit_ns + HANG_NS;
	status = dwc_replica_call(r, job_continue);
	if (status != DWC_SLICE_UP)
		return status;
	e->diff = DWC_DIFF_HANG;
	return DWC_DIVERGED;
}

/* Both ended, one of them or both by its counter. */
static int align(struct dwc_engine *e, int first, int second)
{
	struct dwc_replica *a = replica_a(e), *b = replica_b(e);
	uint64_t ended_ns = a->ended_ns, started_ns = a->started_ns;
	int status;

	if (!e->rearm && (status = measure_rate(e)))
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
		status = both(e, dwc_pages_harvest);
	/* the time of the way to the common point is not the guest's */
	a->ended_ns = ended_ns;
	a->started_ns = started_ns;
	return status;
}

/* The length of the element is the time that the replica took that the host disturbed less. */
static void note_length(struct dwc_engine *e)
{
	uint64_t a_ns = replica_a(e)->ended_ns - replica_a(e)->started_ns;
	uint64_t b_ns = replica_b(e)->ended_ns - replica_b(e)->started_ns;
	uint64_t ns = a_ns < b_ns ? a_ns : b_ns;

	e->slice_used_ns += ns;
	if (ns > e->stats.longest_ns)
		e->stats.longest_ns = ns;
}

static int execute(struct dwc_engine *e)
{
	struct dwc_replica *a = replica_a(e), *b = replica_b(e);
	int first, second;

	e->agreed = 0;
	if ((first = plan_slice(e)))
		return first;
	a->limit_ns = b->limit_ns = e->counting ? 0 : time_limit(e);
	if (e->strategy == DWC_PARALLEL)
		dwc_replica_post(b, job_element);
	first = job_element(a);
	e->stats.first_run_ns += a->ended_ns - a->started_ns;
	if (e->strategy == DWC_OFF)
		return first;
	if (e->strategy == DWC_PARALLEL) {
		uint64_t waited_from = dwc_now_ns();

		second = dwc_replica_wait(b);
		e->stats.second_run_ns += dwc_now_ns() - waited_from;
	} else {
		if (first && first != DWC_SLICE_END)
			return first;
		if (first && e->arm && (second = dwc_counter_read(a, &e->budget))) /* no further than e1 got */
			return second;
		second = dwc_replica_call(b, job_element);
		e->stats.second_run_ns += b->ended_ns - b->started_ns;
	}
	if (first < 0 || second < 0)
		return first < 0 ? first : second;
	if (first == DWC_STOPPED || second == DWC_STOPPED)
		return DWC_STOPPED;
	note_length(e);
	if (first == DWC_SLICE_END || second == DWC_SLICE_END)
		return align(e, first, second);
	if (first == DWC_SLICE_UP && second == DWC_SLICE_UP)
		return DWC_SLICE_UP;
	if (first == DWC_SLICE_UP)
		return extend(e, a);
	if (second == DWC_SLICE_UP)
		return extend(e, b);
	return 0;
}

static uint64_t data_length(const struct dwc_exit *x)
{
	uint64_t length = (uint64_t)x->size * x->count;

	return length < sizeof x->data ? length : sizeof x->data;
}

static void copy_exit(struct dwc_exit *to, const struct dwc_exit *from)
{
	memcpy(to, from, offsetof(struct dwc_exit, data) + data_length(from));
}

/* Inputs of the element after the exit e->exit: there is as much data as that asked for. */
static void copy_inputs(const struct dwc_engine *e, struct dwc_inputs *to, const struct dwc_inputs *from)
{
	memcpy(to, from, offsetof(struct dwc_inputs, io_data) + data_length(&e->exit));
}

static int same_exit(const struct dwc_exit *a, const struct dwc_exit *b)
{
	if (memcmp(a, b, offsetof(struct dwc_exit, data)))
		return 0;
	return !a->is_write || !memcmp(a->data, b->data, data_length(a));
}

static int finish_instruction_later(const struct dwc_engine *e, const struct dwc_exit *x)
{
	if (x->reason == KVM_EXIT_IO)
		return !(x->is_write && e->out_rip_after);
	return x->reason == KVM_EXIT_MMIO;
}

/* A rollback replays what was committed since the checkpoint. Only ends that come again at the same
 * instruction by themselves can be replayed: behind any other (a window, a slice's end) stands a checkpoint. */
static int replayable(const struct dwc_exit *x)
{
	return x->reason == KVM_EXIT_IO || x->reason == KVM_EXIT_MMIO || x->reason == KVM_EXIT_HLT ||
	       x->reason == KVM_EXIT_DEBUG;
}

static int compare(struct dwc_engine *e, int all)
{
	struct dwc_replica *a = replica_a(e), *b = replica_b(e);

	e->diff = same_exit(&a->exit, &b->exit) ? 0 : DWC_DIFF_EXIT;
	e->diff |= (all ? dwc_state_compare : dwc_state_compare_synced)(&a->state, &b->state, &e->stats);
	e->diff |= dwc_pages_compare(e, all);
	return e->diff ? DWC_DIVERGED : 0;
}

/* Both replicas stand behind `exit`, and all groups have been compared: this is the checkpoint now. */
static int take_checkpoint(struct dwc_engine *e, const struct dwc_exit *exit)
{
	e->checkpoint = replica_a(e)->state;
	copy_exit(&e->checkpoint_exit, exit);
	e->log_count = 0;
	return dwc_pages_commit(e);
}

/* Compare what both replicas show now. Equal: the element is committed, as the checkpoint or to the log. */
static int compare_commit(struct dwc_engine *e)
{
	const struct dwc_exit *exit = &replica_a(e)->exit;
	int all = e->checkpoint_due || !replayable(exit), err;

	if (e->agreed)
		return take_checkpoint(e, exit);
	if (all && !e->checkpoint_due && (err = both(e, dwc_replica_read_state)))
		return err;
	if ((err = compare(e, all)))
		return err;
	if (all)
		return take_checkpoint(e, exit);
	copy_inputs(e, &e->log[e->log_count].inputs, &e->inputs);
	copy_exit(&e->log[e->log_count++].exit, exit);
	dwc_state_get_synced(replica_a(e), &e->committed);
	return 0;
}

/* The end of an element, whoever brought the replicas there. DWC_DIVERGED: nothing has happened. */
int dwc_engine_commit(struct dwc_engine *e)
{
	struct dwc_replica *a = replica_a(e);
	uint64_t from = dwc_now_ns();
	int err;

	if (e->strategy != DWC_OFF && (err = compare_commit(e)))
		return err;
	e->stats.compare_ns += dwc_now_ns() - from;
	e->checkpoint_due = e->log_count + 1 >= e->checkpoint_every;
	copy_exit(&e->exit, &a->exit);
	e->has_pending_io = finish_instruction_later(e, &a->exit);
	e->retrying = 0;
	e->stats.committed++;
	e->stats.by_end[a->exit.reason & 63]++;
	e->inputs.answer = DWC_ANSWER_IO;
	advance_clock(e, a->ended_ns - a->started_ns);
	return 0;
}

/* Make the last committed state the checkpoint, before the VMM changes guest memory: the change must
 * not reach elements that a later rollback replays. Both replicas stand there, restored or committed. */
int dwc_engine_checkpoint(struct dwc_engine *e)
{
	int err;

	if (!e->log_count)
		return 0;
	if ((err = both(e, dwc_pages_harvest)) || (err = both(e, dwc_replica_read_state)) || (err = compare(e, 1)))
		return err;
	return take_checkpoint(e, &e->exit);
}

/* After HLT: only an interrupt ends it. The virtual clock jumps to the next timer interrupt; it is
 * waited for with the host clock, and where somebody sits at the console. Waits in short pieces, so
 * that the caller sees requests. */
static int idle(struct dwc_engine *e)
{
	struct timespec pause = { 0, IDLE_SLICE_NS };
	uint64_t deadline;

	dwc_platform_tick(e);
	if (dwc_pic_pending(&e->pic)) {
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
		if (dwc_time_site_answer(e))
			return 0;
		if (!dwc_platform_io(e, x, e->inputs.io_data))
			return DWC_EXIT_PYTHON;
		return dwc_uart_wants_drain(&e->uart) ? DWC_CONSOLE : 0;
	case KVM_EXIT_DEBUG:
		if (!dwc_time_site_answer(e))
			dwc_reflect_debug_exception(e);
		return 0;
	case KVM_EXIT_HLT:
		e->halted = replica_a(e)->run->if_flag;
		return e->halted ? 0 : DWC_EXIT_PYTHON;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_INTR: /* the slice was used up */
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

int dwc_engine_run(struct dwc_engine *e)
{
	int status;
	uint64_t from;

	for (;;) {
		if ((status = boundary(e)))
			return status;
		if (e->halted) {
			if ((status = idle(e)))
				return status;
			if (e->halted)
				continue;
		}
		if (!e->retrying)
			choose_inputs(e);
		if (e->waiting > WAITING_ELEMENTS) {
			e->waiting = 0;
			return DWC_WAITING;
		}
		status = execute(e);
		e->retrying = 0;
		if (status == DWC_SLICE_UP && e->strategy == DWC_OFF) {
			e->has_pending_io = 0; /* any point is an end where nothing has to match */
			advance_clock(e, replica_a(e)->ended_ns - replica_a(e)->started_ns);
			continue;
		}
		if (status || (status = dwc_engine_commit(e)))
			return status;
		from = dwc_now_ns();
		status = act(e);
		e->stats.device_ns += dwc_now_ns() - from;
		if (status)
			return status;
	}
}

/* What a device in Python answered to the exit of the checkpoint. */
void dwc_engine_answer(struct dwc_engine *e, const uint8_t *data, uint64_t length)
{
	memcpy(e->inputs.io_data, data, length < DWC_IO_BYTES ? length : DWC_IO_BYTES);
}

static int job_restore(struct dwc_replica *r)
{
	r->state = r->engine->checkpoint;
	return dwc_state_set(r, &r->state, r->engine->flush == DWC_FLUSH_PGE);
}

/* Run to the exit that is known to come (expected): the I/O exit at which the checkpoint stands, whose
 * instruction exits again without the device being asked, or the end of a logged element. */
static int job_reach_exit(struct dwc_replica *r)
{
	int status;

	r->run->request_interrupt_window = 0;
	r->started_ns = dwc_now_ns();
	status = dwc_replica_run(r, REPLAY_NS);
	if (status < 0 || status == DWC_STOPPED)
		return status;
	return status == 0 && same_exit(&r->exit, r->engine->expected) ? 0 : DWC_UNREPEATABLE;
}

static int job_replay(struct dwc_replica *r)
{
	int err = dwc_replica_feed(r);

	return err ? err : job_reach_exit(r);
}

/* Both replicas must have arrived where the last logged element was committed: the same to the outside (its exits),
 * in its registers, and equal in all memory. */
static int arrived(struct dwc_engine *e)
{
	int err;

	if ((err = both(e, dwc_pages_harvest)))
		return err;
	if ((e->diff = dwc_state_compare_synced(&replica_a(e)->state, &replica_b(e)->state, &e->stats)) ||
	    (e->diff = dwc_state_compare_synced(&replica_a(e)->state, &e->committed, &e->stats)) ||
	    (e->diff = dwc_pages_compare(e, 0)))
		return DWC_UNREPEATABLE;
	return 0;
}

/* From the checkpoint to the last committed element, with the logged inputs; devices have acted. */
static int replay(struct dwc_engine *e)
{
	int err;

	copy_exit(&e->exit, &e->checkpoint_exit);
	e->has_pending_io = finish_instruction_later(e, &e->exit);
	e->expected = &e->checkpoint_exit;
	if (e->has_pending_io && (err = both(e, job_reach_exit)))
		return err;
	for (uint32_t i = 0; i < e->log_count; i++) {
		copy_inputs(e, &e->inputs, &e->log[i].inputs);
		e->expected = &e->log[i].exit;
		if ((err = both(e, job_replay)))
			return err;
		copy_exit(&e->exit, &e->log[i].exit);
		e->has_pending_io = finish_instruction_later(e, &e->exit);
	}
	return e->log_count ? arrived(e) : 0;
}

static int restore(struct dwc_engine *e, int all)
{
	int err;

	if (e->counting && ((err = dwc_counter_disarm(replica_a(e))) || (err = dwc_counter_disarm(replica_b(e)))))
		return err;
	if ((err = both(e, dwc_replica_complete)) || (err = dwc_pages_rollback(e, all)))
		return err;
	if (e->flush == DWC_FLUSH_MEMSLOT && (err = dwc_pages_rearm(e)))
		return err;
	return both(e, job_restore);
}

/* Both replicas back to the last committed element. The inputs of the next one stay, so that it can run again.
 * An element of the log may have read time without any effect that differed; replayed, it can take another
 * way (Linux' get_any_partial() looks at get_cycles() % 1024): then once more. */
int dwc_engine_rollback(struct dwc_engine *e, int all)
{
	struct dwc_inputs inputs = e->inputs;
	uint64_t from = dwc_now_ns();
	uint32_t diff = e->diff;
	int err, tries = 0;

	do {
		if ((err = restore(e, all)))
			return err;
		err = replay(e);
	} while (err == DWC_UNREPEATABLE && ++tries < REPLAY_TRIES);
	if (err)
		return err;
	e->rearm = 1;
	e->diff = diff;
	e->inputs = inputs;
	e->retrying = 1;
	e->stats.rollbacks++;
	e->stats.rollback_ns += dwc_now_ns() - from;
	return 0;
}

static int job_step(struct dwc_replica *r)
{
	r->started_ns = dwc_now_ns();
	return dwc_replica_run(r, NS_PER_S);
}

/* Enter one replica once, without new inputs (single steps are set up by the caller). */
int dwc_engine_step(struct dwc_engine *e, int replica)
{
	return dwc_replica_call(&e->replicas[replica], job_step);
}

int dwc_engine_resume_inputs(struct dwc_engine *e, int replica)
{
	return dwc_replica_call(&e->replicas[replica], dwc_replica_feed);
}

int dwc_engine_start(struct dwc_engine *e)
{
	int err, count = e->strategy == DWC_OFF ? 1 : 2;

	if ((err = dwc_install_kick()))
		return err;
	e->rearm = 1;
	e->checkpoint_due = e->checkpoint_every <= 1;
	/* a counter counts in every VM that its thread runs: one thread for each */
	replica_b(e)->has_thread = e->strategy == DWC_PARALLEL || (e->strategy == DWC_SEQUENTIAL && e->counting);
	for (int i = 0; i < count; i++) {
		e->replicas[i].engine = e;
		e->replicas[i].index = i;
	}
	if ((err = dwc_replica_start(replica_a(e))))
		return err;
	return replica_b(e)->has_thread ? dwc_replica_start(replica_b(e)) : 0;
}

void dwc_engine_stop(struct dwc_engine *e)
{
	dwc_replica_stop(replica_a(e));
	if (replica_b(e)->has_thread)
		dwc_replica_stop(replica_b(e));
}

void dwc_engine_request_stop(struct dwc_engine *e)
{
	atomic_store(&e->stop, 1);
}

void dwc_engine_request_attention(struct dwc_engine *e)
{
	atomic_store(&e->attention, 1);
}
