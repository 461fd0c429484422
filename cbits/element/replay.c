/* Replay: one VM runs recorded elements again, from a snapshot on. No device is asked, and nothing leaves the machine: what an element starts
 * with is in the recording, and inner exits are answered by the devices in C, whose state is there as well. At its end registers and memory
 * must be what they were. So the recording takes the place of the second replica, and any CPU can be asked whether it computes what the
 * first ones have computed.
 *
 * Replica A is the VM. Replica B is the same one: comparisons between them find nothing. */
#include "element/replay.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "element/between.h"
#include "element/commit.h"
#include "element/repeat.h"
#include "element/rollback.h"
#include "element/stops.h"
#include "engine.h"
#include "memory/dma.h"
#include "phase.h"
#include "ram.h"
#include "replica/hostreads.h"
#include "replica/inner.h"
#include "replica/inputs.h"
#include "sites/sites.h"
#include "status.h"

#define MOST_STEPS (1u << 20)
#define MOST_EVENTS (1ull << 32)
#define INPUTS_BYTES offsetof(struct dwc_inputs, io_data)

/* Whether an element of the recording can be one. Its numbers are checked here, once: a file can be damaged or made by anyone. */
static int is_sound(const struct dwc_engine *e, const struct dwc_recorded *x)
{
	struct dwc_inputs inputs;

	if (x->head.bytes < sizeof *x || x->inputs_bytes != INPUTS_BYTES || x->answer_bytes != dwc_recorded_answer(e) ||
	    x->head.bytes < sizeof *x + INPUTS_BYTES + x->answer_bytes || x->ended >= DWC_RECORDED_ENDS || x->checkpoint > 1 || x->user_traps > 1)
		return 0;
	if (e->replay.begun && (x->number != e->stats.committed || x->chain != dwc_record_chain(e->replay.chain, x)))
		return 0;
	memcpy(&inputs, x->inputs, INPUTS_BYTES);
	if (!x->checkpoint && (e->log.count == DWC_LOG_ELEMENTS || x->ended != DWC_ENDED_NATURALLY)) /* it could not be run again */
		return 0;
	return inputs.vector >= -1 && inputs.vector <= UINT8_MAX && inputs.answer >= DWC_ANSWER_IO && inputs.answer <= DWC_ANSWER_REFUSED &&
	       x->distance <= (x->ended == DWC_ENDED_BY_STEPS ? MOST_STEPS : MOST_EVENTS) && x->inner_exits < DWC_NO_LIMIT - 1;
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

static int take_checkpoint(struct dwc_engine *e, const struct dwc_exit *exit)
{
	e->replay.tick_since = 0;
	return dwc_take_checkpoint(e, exit);
}

static int commit(struct dwc_engine *e, const struct dwc_recorded *x)
{
	int err;

	if (!x->checkpoint)
		dwc_log_element(e);
	else if ((err = take_checkpoint(e, &e->replicas[0].exit)))
		return err;
	dwc_element_over(e);
	return 0;
}

static int finish(struct dwc_engine *e, const struct dwc_recorded *x)
{
	int result = dwc_repeat_element(e, x);

	return result ? result : commit(e, x);
}

static int replay_element(struct dwc_engine *e, const struct dwc_recorded *x, uint64_t last)
{
	int result;

	if (!is_sound(e, x))
		return DWC_REPLAY_MALFORMED;
	if ((result = begin(e, x)))
		return result;
	if (x->number + 1 == e->replay.wanted || dwc_stands_at_point(e))
		return DWC_REPLAY_AT_START;
	if ((result = finish(e, x)))
		return result;
	return e->stats.committed == last ? DWC_REPLAY_REACHED : DWC_REPLAY_WANTS_MORE;
}

static int replay_site(struct dwc_engine *e, const struct dwc_recorded_bytes *x)
{
	struct dwc_site site;

	if (x->at > e->sites.count || x->at >= DWC_MAX_SITES || x->length != sizeof site)
		return DWC_REPLAY_MALFORMED;
	memcpy(&site, x->data, sizeof site);
	if (!site.read.length || site.read.length > sizeof site.original || !dwc_is_ram(e->config.ram_bytes, site.gpa, site.read.length))
		return DWC_REPLAY_MALFORMED;
	e->sites.site[x->at] = site;
	e->sites.count += x->at == e->sites.count;
	return DWC_REPLAY_WANTS_MORE;
}

static int replay_bytes(struct dwc_engine *e, const struct dwc_recorded_bytes *x)
{
	if (x->head.bytes < sizeof *x || x->length > x->head.bytes - sizeof *x)
		return DWC_REPLAY_MALFORMED;
	if (x->head.kind == DWC_RECORD_MEMORY)
		return dwc_memory_write(e, x->at, x->data, x->length) ? DWC_REPLAY_MALFORMED : DWC_REPLAY_WANTS_MORE;
	if (x->head.kind == DWC_RECORD_SITE)
		return replay_site(e, x);
	if (x->at > sizeof e->pc || x->length > sizeof e->pc - x->at)
		return DWC_REPLAY_MALFORMED;
	memcpy((uint8_t *)&e->pc + x->at, x->data, x->length);
	return DWC_REPLAY_WANTS_MORE;
}

static int replay_checkpoint(struct dwc_engine *e, const struct dwc_recorded_checkpoint *x)
{
	int result;

	if (x->head.bytes < sizeof *x)
		return DWC_REPLAY_MALFORMED;
	result = dwc_repeat_checkpoint(e, &x->sums);
	return result ? result : take_checkpoint(e, &e->exit);
}

static int replay_record(struct dwc_engine *e, const struct dwc_record_head *head, uint64_t last)
{
	switch (head->kind) {
	case DWC_RECORD_ELEMENT:
		return replay_element(e, (const struct dwc_recorded *)head, last);
	case DWC_RECORD_MEMORY:
	case DWC_RECORD_DEVICES:
	case DWC_RECORD_SITE:
		return replay_bytes(e, (const struct dwc_recorded_bytes *)head);
	case DWC_RECORD_CHECKPOINT:
		return replay_checkpoint(e, (const struct dwc_recorded_checkpoint *)head);
	case DWC_RECORD_END:
		return DWC_REPLAY_ENDED;
	default:
		return DWC_REPLAY_MALFORMED;
	}
}

/* Run the element on whose way the VM is (AT_START, MET, within.c) from its start to its end, past all points. Returns an enum
 * dwc_replay_result or -errno. */
int dwc_replay_finish(struct dwc_engine *e)
{
	uint32_t points = e->points.count;
	int result = dwc_engine_rollback(e, 0, DWC_PHASE_INPUTS_CHOSEN);

	if (result)
		return result < 0 ? result : -EIO;
	e->points.count = e->points.hits = 0;
	result = finish(e, &e->replay.expected);
	e->points.count = points;
	return result;
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
