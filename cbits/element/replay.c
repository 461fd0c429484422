/* Replay: one VM runs recorded elements again, from a snapshot on. No device is asked, and nothing leaves the machine: what an element starts
 * with is in the recording, and inner exits are answered by the devices in C, whose state is there as well. At its end registers and memory
 * must be what they were. So the recording takes the place of the second replica, and any CPU can be asked whether it computes what the
 * first ones have computed.
 *
 * Replica A is the VM. Replica B is the same one: comparisons between them find nothing. */
#include "element/replay.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "element/between.h"
#include "element/commit.h"
#include "element/rollback.h"
#include "element/run.h"
#include "element/settle.h"
#include "element/steps.h"
#include "engine.h"
#include "memory/dma.h"
#include "memory/guard.h"
#include "memory/pages.h"
#include "phase.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "replica/limit.h"
#include "replica/replica.h"
#include "sites/sites.h"
#include "status.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

#define SPARE_NS 10000000000ull /* in case this machine is slower */
#define SPARE_TIMES 8
#define MOST_TICKS 64 /* an element that is as long as a tick meets one each time */
#define MOST_STEPS (1u << 20)
#define INPUTS_BYTES offsetof(struct dwc_inputs, io_data)

static int differs(struct dwc_engine *e, uint32_t part)
{
	e->replay.differs |= part;
	return DWC_REPLAY_DIFFERS;
}

/* Whether an element of the recording can be one. Its numbers are checked here, once: a file can be damaged or made by anyone. */
static int is_sound(const struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_inputs inputs;

	if (x->head.bytes < sizeof *x || x->inputs_bytes != INPUTS_BYTES || x->answer_bytes != dwc_exit_length(&e->exit) ||
	    x->head.bytes < sizeof *x + INPUTS_BYTES + x->answer_bytes || x->ended >= DWC_RECORDED_ENDS || x->checkpoint > 1 || x->user_traps > 1)
		return 0;
	if (e->replay.begun && (x->number != e->stats.committed || x->chain != dwc_record_chain(e->replay.chain, x)))
		return 0;
	memcpy(&inputs, x->inputs, INPUTS_BYTES);
	if (!x->checkpoint && (e->log.count == DWC_LOG_ELEMENTS || x->ended != DWC_ENDED_NATURALLY)) /* it could not be run again */
		return 0;
	return inputs.vector >= -1 && inputs.vector <= UINT8_MAX && inputs.answer >= DWC_ANSWER_IO && inputs.answer <= DWC_ANSWER_REFUSED &&
	       x->distance <= MOST_STEPS && x->inner_exits < DWC_NO_LIMIT - 1;
}

static int begin(struct dwc_engine *e, const struct dwc_recorded *x)
{
	memcpy(&e->replay.expected, x, sizeof *x);
	e->replay.begun = 1;
	e->replay.chain = x->chain;
	e->stats.committed = x->number;
	memcpy(&e->inputs, x->inputs, INPUTS_BYTES + x->answer_bytes);
	e->clock.guest_ns = x->guest_ns;
	e->checkpoint.due = (int)x->checkpoint;
	dwc_set_phase(e, DWC_PHASE_INPUTS_CHOSEN);
	return dwc_set_user_traps(e, (int)x->user_traps);
}

static int run_to_exit(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int end;

	dwc_set_phase(e, DWC_PHASE_RUNNING);
	dwc_limit_set(a, SPARE_NS + (x->ran_ns < SPARE_NS ? x->ran_ns : SPARE_NS) * SPARE_TIMES, 1);
	dwc_inner_plan(a, x->inner_exits + 1, 0);
	end = dwc_job_element(a);
	if (end == DWC_RUN_STOP_REQUESTED)
		return DWC_REPLAY_STOP_REQUESTED;
	if (end)
		return end < 0 ? end : differs(e, DWC_REPLAYED_HANG);
	dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return 0;
}

static int run_steps(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int result = dwc_step_until(e, 0, x->distance, 0);

	if (result < 0)
		return result;
	if (result || e->steps.done != x->distance)
		return differs(e, DWC_REPLAYED_STEPS);
	dwc_replica_ends_by(a, KVM_EXIT_INTR);
	dwc_set_phase(e, DWC_PHASE_BOTH_ENDED);
	return x->checkpoint ? dwc_replica_call(a, dwc_replica_read_state) : 0;
}

static int run_settling(struct dwc_engine *e)
{
	dwc_set_phase(e, DWC_PHASE_RUNNING);
	return dwc_run_settling(e);
}

static int run_to_end(struct dwc_engine *e, const struct dwc_recorded *x)
{
	switch (x->ended) {
	case DWC_ENDED_BY_STEPS:
		return run_steps(e, x);
	case DWC_ENDED_SETTLED:
		return run_settling(e);
	case DWC_ENDED_BY_COUNT:
		return DWC_REPLAY_WANTS_COUNTER;
	default:
		return run_to_exit(e, x);
	}
}

/* Compare memory and the registers that are read at checkpoints only. */
static int compare_checkpoint(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int err;

	if (dwc_state_sum_xsave(&a->state) != x->xsave)
		differs(e, DWC_REPLAYED_XSAVE);
	if (dwc_state_sum_msrs(&a->state) != x->msrs)
		differs(e, DWC_REPLAYED_MSRS);
	if (dwc_state_sum_others(&a->state) != x->others)
		differs(e, DWC_REPLAYED_OTHERS);
	if ((err = dwc_pages_harvest(a)))
		return err;
	dwc_pages_compare(e, 1);
	if (dwc_content_to_be(e) != x->memory)
		differs(e, DWC_REPLAYED_MEMORY);
	return 0;
}

/* Compare what the recording has of the element's end. */
static int compare(struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_replica *a = &e->replicas[0];
	int err;

	if (memcmp(&a->exit, x->exit, sizeof x->exit))
		differs(e, DWC_REPLAYED_EXIT);
	if (a->inner.count != x->inner_exits || a->inner.flow != x->flow)
		differs(e, DWC_REPLAYED_DEVICES);
	if (dwc_recorded_registers(a) != x->registers)
		differs(e, DWC_REPLAYED_REGISTERS);
	if (x->checkpoint && (err = compare_checkpoint(e, x)))
		return err;
	return e->replay.differs ? DWC_REPLAY_DIFFERS : 0;
}

/* Run it, and once more whenever it differs and the frozen TSC has ticked within it: the guest may have read the time just then. */
static int run_and_compare(struct dwc_engine *e, const struct dwc_recorded *x)
{
	int result;

	for (int tries = 0;; tries++) {
		e->replay.differs = 0;
		if (!(result = run_to_end(e, x)))
			result = compare(e, x);
		if (result != DWC_REPLAY_DIFFERS || !e->replicas[0].tick_crossed || tries == MOST_TICKS)
			return result;
		e->replay.ticks++;
		if (e->phase != DWC_PHASE_INPUTS_CHOSEN)
			dwc_set_phase(e, DWC_PHASE_DISCARDED);
		if ((result = dwc_engine_rollback(e, 0, DWC_PHASE_INPUTS_CHOSEN)))
			return result < 0 ? result : result == DWC_ROLLBACK_STOP_REQUESTED ? DWC_REPLAY_STOP_REQUESTED : DWC_REPLAY_DIFFERS;
		e->clock.guest_ns = x->guest_ns;
	}
}

static int commit(struct dwc_engine *e, const struct dwc_recorded *x)
{
	int err;

	if (x->checkpoint && (err = dwc_take_checkpoint(e, &e->replicas[0].exit)))
		return err;
	if (!x->checkpoint)
		dwc_log_element(e);
	dwc_element_over(e);
	return 0;
}

static int replay_element(struct dwc_engine *e, const struct dwc_recorded *x, uint64_t last)
{
	int result;

	if (!is_sound(e, x))
		return DWC_REPLAY_MALFORMED;
	if ((result = begin(e, x)) || (result = run_and_compare(e, x)) || (result = commit(e, x)))
		return result;
	return e->stats.committed == last ? DWC_REPLAY_REACHED : DWC_REPLAY_WANTS_MORE;
}

static int replay_bytes(struct dwc_engine *e, const struct dwc_recorded_bytes *x)
{
	if (x->head.bytes < sizeof *x || x->length > x->head.bytes - sizeof *x)
		return DWC_REPLAY_MALFORMED;
	if (x->head.kind == DWC_RECORD_MEMORY)
		return dwc_memory_write(e, x->at, x->data, x->length) ? DWC_REPLAY_MALFORMED : DWC_REPLAY_WANTS_MORE;
	if (x->at > sizeof e->pc || x->length > sizeof e->pc - x->at)
		return DWC_REPLAY_MALFORMED;
	memcpy((uint8_t *)&e->pc + x->at, x->data, x->length);
	return DWC_REPLAY_WANTS_MORE;
}

static int replay_record(struct dwc_engine *e, const struct dwc_record_head *head, uint64_t last)
{
	switch (head->kind) {
	case DWC_RECORD_ELEMENT:
		return replay_element(e, (const struct dwc_recorded *)head, last);
	case DWC_RECORD_MEMORY:
	case DWC_RECORD_DEVICES:
		return replay_bytes(e, (const struct dwc_recorded_bytes *)head);
	case DWC_RECORD_END:
		return DWC_REPLAY_ENDED;
	default:
		return DWC_REPLAY_MALFORMED;
	}
}

/* Replay records, which are aligned to DWC_RECORD_ALIGN, until `last` elements are committed (0: all of them). `used`: how many bytes were
 * replayed, all whole records. Returns an enum dwc_replay_result or -errno; what is not zero is final, except REACHED. */
int dwc_replay(struct dwc_engine *e, const uint8_t *bytes, uint64_t length, uint64_t last, uint64_t *used)
{
	const struct dwc_record_head *head;
	int result = DWC_REPLAY_WANTS_MORE;

	for (*used = 0; !result && length - *used >= sizeof *head; *used += head->bytes) {
		head = (const struct dwc_record_head *)(bytes + *used);
		if (head->bytes < sizeof *head || head->bytes % DWC_RECORD_ALIGN || head->bytes > DWC_RECORD_MOST)
			return DWC_REPLAY_MALFORMED;
		if (head->bytes > length - *used)
			return DWC_REPLAY_WANTS_MORE;
		if (dwc_is_stop_requested(e))
			return DWC_REPLAY_STOP_REQUESTED;
		result = replay_record(e, head, last);
	}
	return result;
}
