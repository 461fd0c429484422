/* A recording: a log of committed elements. It grows in memory, and the caller takes it from time to time.
 *
 * What an element starts with is in its inputs, and in changes of guest memory and of the devices that were made since the one before. The
 * devices are written as the bytes that differ from what that one has left: so a replay needs no devices but those in C, which answer
 * inner exits. */
#include "record/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "assertion.h"
#include "engine.h"
#include "pc/pc.h"
#include "phase.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sum.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

#define NEARBY 16 /* equal bytes between two changes that cost less than another record */

_Static_assert(sizeof((struct dwc_recorded *)0)->exit == offsetof(struct dwc_exit, data), "an exit without its data");

static uint64_t aligned(uint64_t bytes)
{
	return (bytes + DWC_RECORD_ALIGN - 1) & ~(uint64_t)(DWC_RECORD_ALIGN - 1);
}

static int is_recording(const struct dwc_engine *e)
{
	return e->recorder.bytes && !e->recorder.over;
}

/* Room for a record, whose head is filled in and whose other bytes are zeros. NULL: there is no memory. */
static void *add(struct dwc_recorder *to, enum dwc_record_kind kind, uint64_t bytes)
{
	uint64_t all = aligned(bytes), wanted = to->used + all;
	struct dwc_record_head *head;
	uint8_t *more;

	if (wanted > to->room) {
		if (to->lost || !(more = realloc(to->bytes, wanted * 2))) {
			to->lost = 1;
			return NULL;
		}
		to->bytes = more;
		to->room = wanted * 2;
	}
	head = (struct dwc_record_head *)(to->bytes + to->used);
	to->used = wanted;
	memset(head, 0, all);
	head->kind = kind;
	head->bytes = (uint32_t)all;
	return head;
}

static void add_bytes(struct dwc_recorder *to, enum dwc_record_kind kind, uint64_t at, const uint8_t *data, uint64_t length)
{
	struct dwc_recorded_bytes *record = add(to, kind, sizeof *record + length);

	if (!record)
		return;
	record->at = at;
	record->length = length;
	memcpy(record->data, data, length);
}

/* A site is learned: a replay answers its trap within an element, too. */
void dwc_record_site(struct dwc_engine *e, uint32_t number)
{
	const struct dwc_site *site = &e->sites.site[number];

	if (is_recording(e))
		add_bytes(&e->recorder, DWC_RECORD_SITE, number, (const uint8_t *)site, sizeof *site);
}

static void record_all_sites(struct dwc_engine *e)
{
	for (uint32_t i = 0; i < e->sites.count; i++)
		dwc_record_site(e, i);
}

/* A replay may begin between these two elements: it gets sites and devices as a whole, as it knows nothing of what was before. */
void dwc_record_for_start(struct dwc_engine *e)
{
	struct dwc_recorder *to = &e->recorder;

	record_all_sites(e);
	add_bytes(to, DWC_RECORD_DEVICES, 0, (const uint8_t *)&e->pc, dwc_pc_bytes(&e->pc));
	dwc_pc_copy(&to->pc, &e->pc);
}

/* Record from now on, between two elements. Returns -ENOMEM or 0. */
int dwc_record_begin(struct dwc_engine *e, int without_loops)
{
	struct dwc_recorder *to = &e->recorder;

	memset(to, 0, sizeof *to);
	to->without_loops = without_loops;
	to->room = 2 * DWC_RECORD_DRAIN;
	to->bytes = malloc(to->room);
	record_all_sites(e);
	return to->bytes ? 0 : -ENOMEM;
}

void dwc_record_end(struct dwc_engine *e)
{
	free(e->recorder.bytes);
	memset(&e->recorder, 0, sizeof e->recorder);
}

int dwc_record_wants_drain(const struct dwc_engine *e)
{
	return e->recorder.used >= DWC_RECORD_DRAIN || e->recorder.over;
}

/* The VMM has written guest memory. */
void dwc_record_memory(struct dwc_engine *e, uint64_t gpa, const uint8_t *data, uint64_t length)
{
	if (is_recording(e))
		add_bytes(&e->recorder, DWC_RECORD_MEMORY, gpa, data, length);
}

/* The end of the change that begins at `from`: the first byte of some equal ones, or of none. */
static size_t end_of_change(const uint8_t *old, const uint8_t *new, size_t from, size_t length)
{
	size_t end = from + 1;

	for (size_t at = end; at < length && at < end + NEARBY; at++)
		if (old[at] != new[at])
			end = at + 1;
	return end;
}

static void add_devices(struct dwc_recorder *to, const struct dwc_pc *pc)
{
	const uint8_t *old = (const uint8_t *)&to->pc, *new = (const uint8_t *)pc;
	size_t length = dwc_pc_bytes(pc), end;

	if (!memcmp(old, new, length))
		return;
	for (size_t at = 0; at < length; at = end) {
		end = at + 1;
		if (old[at] == new[at])
			continue;
		end = end_of_change(old, new, at, length);
		add_bytes(to, DWC_RECORD_DEVICES, at, new + at, end - at);
	}
}

/* A read has no data yet, but what was there before. */
static uint64_t registers_sum(const struct dwc_exit *x, const struct dwc_state *state)
{
	uint64_t sum = dwc_sum(1, x, offsetof(struct dwc_exit, data));

	if (x->is_write)
		sum = dwc_sum(sum, x->data, dwc_exit_length(x));
	return dwc_state_sum_synced(sum, state);
}

/* The sum of what comes with an exit, where a replica has ended. */
uint64_t dwc_recorded_registers(const struct dwc_replica *r)
{
	return registers_sum(&r->exit, &r->state);
}

/* How many bytes of an answer the next element gets. An exit whose instruction is finished has none: where a recording of one element
 * begins, this exit is not in it. */
uint64_t dwc_recorded_answer(const struct dwc_engine *e)
{
	return e->has_pending_io ? dwc_exit_length(&e->exit) : 0;
}

/* The chain up to and with an element. */
uint64_t dwc_record_chain(uint64_t chain, const struct dwc_recorded *element)
{
	const size_t rest = offsetof(struct dwc_recorded, exit);

	chain = dwc_sum(chain, element, offsetof(struct dwc_recorded, chain));
	return dwc_sum(chain, (const uint8_t *)element + rest, element->head.bytes - rest);
}

/* Events of the progress counter in this element. */
static uint64_t counted(const struct dwc_engine *e)
{
	uint64_t before = e->slice.arm ? 0 : e->recorder.counted, count = e->replicas[0].count;

	return count > before ? count - before : 0;
}

static void sum_checkpoint(const struct dwc_engine *e, struct dwc_recorded_sums *to)
{
	to->xsave = dwc_state_sum_xsave(&e->checkpoint.state);
	to->msrs = dwc_state_sum_msrs(&e->checkpoint.state);
	to->others = dwc_state_sum_others(&e->checkpoint.state);
	to->memory = e->checkpoint.content;
}

/* The last committed state was made a checkpoint. */
void dwc_record_checkpoint(struct dwc_engine *e)
{
	struct dwc_recorded_checkpoint *record;

	if (is_recording(e) && (record = add(&e->recorder, DWC_RECORD_CHECKPOINT, sizeof *record)))
		sum_checkpoint(e, &record->sums);
}

static void fill(const struct dwc_engine *e, struct dwc_recorded *to, enum dwc_recorded_end ended, uint64_t distance)
{
	const struct dwc_replica *a = &e->replicas[0];

	to->number = e->stats.committed;
	to->guest_ns = e->clock.guest_ns;
	to->ran_ns = a->ended_ns - a->started_ns;
	to->ended = ended;
	to->distance = ended == DWC_ENDED_AT_POINT ? counted(e) : distance;
	to->rip = dwc_linear_rip(&a->state);
	to->inner_exits = a->inner.count;
	to->user_traps = e->sites.in_user > 0;
	to->flow = a->inner.flow;
	to->registers = dwc_recorded_registers(a);
	to->checkpoint = !e->log.count;
	if (to->checkpoint)
		sum_checkpoint(e, &to->sums);
	memcpy(to->exit, &a->exit, sizeof to->exit);
	to->chain = dwc_record_chain(e->recorder.chain, to);
}

/* An element has been compared, and is committed now: e->inputs, e->exit and e->pc are still those of its start. */
void dwc_record_element(struct dwc_engine *e, enum dwc_recorded_end ended, uint64_t distance)
{
	const size_t inputs_bytes = offsetof(struct dwc_inputs, io_data), answer_bytes = dwc_recorded_answer(e);
	struct dwc_recorder *to = &e->recorder;
	const struct dwc_inner *inner = &e->replicas[0].inner;
	struct dwc_recorded *record;

	if (!is_recording(e))
		return;
	add_devices(to, &e->pc);
	record = add(to, DWC_RECORD_ELEMENT, sizeof *record + inputs_bytes + answer_bytes);
	if (!record)
		return;
	record->inputs_bytes = (uint32_t)inputs_bytes;
	record->answer_bytes = (uint32_t)answer_bytes;
	memcpy(record->inputs, &e->inputs, inputs_bytes + answer_bytes);
	fill(e, record, ended, distance);
	to->chain = record->chain;
	to->counted = e->replicas[0].count;
	dwc_pc_copy(&to->pc, inner->pc ? inner->pc : &e->pc);
	to->over = to->of_one_element && record->checkpoint;
}

/* The exit before the last committed one. */
static const struct dwc_exit *exit_before_last(const struct dwc_engine *e)
{
	const struct dwc_inner *inner = &e->replicas[0].inner;

	if (inner->count)
		return &inner->before;
	return e->log.count > 1 ? &e->log.entries[e->log.count - 2].exit : &e->checkpoint.exit;
}

/* Behind a rollback, with the inputs of the next element: whether the last committed state can be made a checkpoint, and a replay can
 * begin there. No, if KVM's emulator is in the middle of an instruction. */
int dwc_record_can_begin_at_element(const struct dwc_engine *e)
{
	if (e->phase != DWC_PHASE_INPUTS_CHOSEN)
		return 0;
	return !e->log.count || dwc_returnable(&e->exit, exit_before_last(e));
}

/* The exit at which the checkpoint stands, as an element that has no more than that: from there the unfinished instruction exits again. */
static void add_exit(struct dwc_engine *e)
{
	const struct dwc_state *state = &e->checkpoint.state;
	struct dwc_inputs inputs = { .vector = -1, .answer = DWC_ANSWER_IO, .cr8 = (uint32_t)state->sregs.cr8, .tsc = e->inputs.tsc };
	const size_t inputs_bytes = offsetof(struct dwc_inputs, io_data);
	struct dwc_recorded *record = add(&e->recorder, DWC_RECORD_ELEMENT, sizeof *record + inputs_bytes);

	if (!record)
		return;
	record->number = e->stats.committed - 1;
	record->guest_ns = e->clock.guest_ns;
	record->ended = DWC_ENDED_NATURALLY;
	record->rip = dwc_linear_rip(state);
	record->user_traps = e->sites.in_user > 0;
	record->registers = registers_sum(&e->checkpoint.exit, state);
	record->checkpoint = 1;
	sum_checkpoint(e, &record->sums);
	memcpy(record->exit, &e->checkpoint.exit, sizeof record->exit);
	record->inputs_bytes = (uint32_t)inputs_bytes;
	memcpy(record->inputs, &inputs, inputs_bytes);
	e->recorder.chain = record->chain = dwc_record_chain(0, record);
}

/* Record the element whose inputs are chosen, and what follows up to the next checkpoint: mostly that is its end. The last committed state
 * is one. Returns -ENOMEM or 0. */
int dwc_record_begin_at_element(struct dwc_engine *e, int without_loops)
{
	int err;

	DWC_ASSERT(e, e->phase == DWC_PHASE_INPUTS_CHOSEN && !e->log.count);
	if ((err = dwc_record_begin(e, without_loops)))
		return err;
	e->recorder.of_one_element = 1;
	e->checkpoint.due = 1;
	if (e->has_pending_io)
		add_exit(e);
	return 0;
}
