/* Alignment: both replicas were stopped by overflows of their counters, some instructions late and not
 * equally late. The lagging one is brought to where the other one is: by its counter while it is far
 * away, then by a breakpoint at the other's RIP. Equal registers and equal memory are the proof; counts
 * only tell which one is lagging, and when to give up (docs/progress.md). */
#include "element/align.h"

#include <linux/kvm.h>

#include "engine.h"
#include "host.h"
#include "memory/pages.h"
#include "replica/inner.h"
#include "replica/replica.h"
#include "stats.h"
#include "status.h"
#include "vcpu/counter.h"
#include "vcpu/debug.h"
#include "vcpu/insn.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"

#define TRIES 24
#define SKID 192 /* stop this many events before the leading one; a longer skid costs another try */
#define MOVE_ON 24
#define LONGEST_REPEAT (1u << 16) /* events; a repeated string instruction is one event, and one more at each interrupt */
#define SIXTEENTHS 16
#define NOISE_A_STOP 2 /* many CPUs overcount at each VM entry */
#define LEARNED_FROM 16 /* stops at most; after more of them their own noise would be learned */
#define NOISE 1024 /* if counts are further apart, equal registers mean another turn of a loop */
#define SLACK 16 /* past the target by this and three times the usual spread: it was the leading one */

/* How a part of the catch-up has ended. The values are different from those of status.h. */
enum way {
	WAY_AT_COMMON_POINT, /* all registers equal the other's */
	WAY_OVERRUN = 0x7000, /* the budget is used up, or the breakpoint was passed: read the counts again */
	WAY_OWN_EXIT,         /* an exit of the guest, a natural end */
	WAY_MET,              /* all state agrees with the other's */
};

static struct dwc_replica *other(struct dwc_replica *r)
{
	return &r->engine->replicas[!r->index];
}

/* The address after the repeated string instruction at which the replica is; 0: it is not at one. */
static uint64_t after_repeat(struct dwc_replica *r)
{
	uint64_t linear = dwc_linear_rip(&r->state);
	struct dwc_insn insn;

	dwc_insn_at(r, linear, &insn);
	return insn.kind == DWC_INSN_STRING ? linear + insn.length : 0;
}

/* A result of dwc_replica_run() as one of the values above. */
static int way_of(int run_end)
{
	return run_end == DWC_RUN_COUNTER ? WAY_OVERRUN : run_end == DWC_RUN_STOP_REQUESTED ? DWC_ALIGN_STOP_REQUESTED : run_end;
}

/* Run for r->advance events, or to a breakpoint (both are WAY_OVERRUN), or to an exit of the guest. */
static int job_advance(struct dwc_replica *r)
{
	int status;

	dwc_counter_extend(r, r->advance);
	r->most_ns = 0;
	r->started_ns = dwc_now_ns();
	status = dwc_replica_run(r, 0);
	if (status)
		return way_of(status);
	return dwc_at_breakpoint(r) ? WAY_OVERRUN : WAY_OWN_EXIT;
}

static int advance(struct dwc_replica *r, uint64_t more)
{
	r->advance = more;
	return dwc_replica_call(r, job_advance);
}

/* Run past the repeated string instruction at which it is: many of its states share one RIP and one event. */
static int pass_repeat(struct dwc_replica *r, uint64_t to)
{
	int err, status;

	if ((err = dwc_set_breakpoint(r, to)))
		return err;
	status = advance(r, LONGEST_REPEAT);
	r->engine->stats.debug_exits++;
	err = dwc_set_breakpoint(r, 0);
	return err ? err : status;
}

/* The other replica has reached a natural end, so this one must reach one soon. Returns an enum dwc_align_result or -errno. */
int dwc_align_to_natural(struct dwc_replica *r, uint64_t limit)
{
	int status;

	dwc_inner_plan(r, dwc_inner_limit_to_meet(other(r)), 0);
	status = advance(r, limit);
	return status == WAY_OWN_EXIT ? DWC_ALIGN_NATURAL : status == WAY_OVERRUN ? DWC_ALIGN_MISSED : status;
}

/* Whether all state agrees, or -errno. It compares memory, if the registers agree. */
int dwc_agree(struct dwc_engine *e)
{
	int err;

	if (!dwc_inner_same(&e->replicas[0], &e->replicas[1]) ||
	    dwc_state_compare_synced(&e->replicas[0].state, &e->replicas[1].state, &e->stats))
		return 0;
	for (int i = 0; i < 2; i++)
		if ((err = dwc_replica_call(&e->replicas[i], dwc_pages_harvest)) ||
		    (err = dwc_replica_call(&e->replicas[i], dwc_replica_read_state)))
			return err;
	return !dwc_state_compare(&e->replicas[0].state, &e->replicas[1].state, &e->stats) && !dwc_pages_compare(e, 1);
}

/* Whether an element that is recorded cannot end where this replica is, since no breakpoint leads there: within a repeated string
 * instruction, whose turns share one RIP, or in an interrupt shadow. */
int dwc_cannot_be_recorded(struct dwc_replica *r)
{
	return r->engine->recorder.bytes && (after_repeat(r) || r->state.events.interrupt.shadow);
}

static int near(uint64_t a, uint64_t b)
{
	return (a > b ? a - b : b - a) <= NOISE;
}

/* By how much replica B counts more than A, minus the usual value at the same instruction. */
static int64_t surplus_of_b(const struct dwc_engine *e)
{
	return (int64_t)(e->replicas[1].count - e->replicas[0].count) - e->slice.habits.bias / SIXTEENTHS;
}

/* By how much replica B leads A. Inner exits say for certain who leads, if their numbers differ. */
static int64_t lead_of_b(const struct dwc_engine *e)
{
	int64_t lead = surplus_of_b(e);
	uint32_t a = e->replicas[0].inner.count, b = e->replicas[1].inner.count;

	if (b > a && lead < 1)
		return 1;
	return b < a && lead > -1 ? -1 : lead;
}

/* A moving average over about eight samples. */
static void follow(int64_t *habit, int64_t sample)
{
	*habit += (sample * SIXTEENTHS - *habit) / 8;
}

/* Both are at the same instruction, so the difference of their counts is noise: learn it. */
static void learn_noise(struct dwc_engine *e)
{
	int64_t off = surplus_of_b(e);

	follow(&e->slice.habits.spread, off < 0 ? -off : off);
	follow(&e->slice.habits.bias, (int64_t)(e->replicas[1].count - e->replicas[0].count));
}

/* The budget with which a run is likely to end at `count`, given the usual skid. */
uint64_t dwc_budget_to_end_at(const struct dwc_engine *e, uint64_t count)
{
	uint64_t skid = (uint64_t)e->slice.habits.skid / SIXTEENTHS;

	return count > DWC_LEAST_BUDGET + skid ? count - skid : count;
}

/* The budget of replica B for the point at which replica A counts `count`. */
uint64_t dwc_budget_of_b(const struct dwc_engine *e, uint64_t count)
{
	int64_t bias = e->slice.habits.bias / SIXTEENTHS;

	return (int64_t)count + bias > DWC_LEAST_BUDGET ? count + (uint64_t)bias : count;
}

/* A catch-up: its target count, by how much it may pass that, and how many debug exceptions it took. */
struct chase {
	uint64_t goal, slack, stops;
};

static int overrun(const struct dwc_replica *r)
{
	const struct chase *c = r->chase;

	return r->count > c->goal + c->slack + NOISE_A_STOP * c->stops;
}

/* On the lagging replica's thread: run to the next hit of the breakpoint at which all registers agree. */
static int job_chase(struct dwc_replica *r)
{
	struct chase *chase = r->chase;
	struct dwc_replica *leader = other(r);
	int status;

	r->most_ns = 0;
	do {
		chase->stops++;
		r->started_ns = dwc_now_ns();
		if (r->state.regs.rip == leader->state.regs.rip)
			dwc_resume_past(r);
		if ((status = dwc_replica_run(r, 0)))
			return way_of(status);
		if (!dwc_at_breakpoint(r)) /* a natural end, such as a time site */
			return WAY_OWN_EXIT;
		r->engine->stats.debug_exits++;
		if (near(r->count, chase->goal) &&
		    !dwc_state_compare_synced(&r->state, &leader->state, &r->engine->stats))
			return WAY_AT_COMMON_POINT;
	} while (!overrun(r));
	return WAY_OVERRUN;
}

/* Run from hit to hit until it agrees with the leading one. If it passes the target by more than noise explains, it was leading. */
static int catch_up(struct dwc_replica *lagging, uint64_t distance)
{
	struct chase chase = { .goal = lagging->count + distance };
	int err, status;

	chase.slack = SLACK + 3 * (uint64_t)lagging->engine->slice.habits.spread / SIXTEENTHS;
	lagging->chase = &chase;
	if ((err = dwc_set_breakpoint(lagging, dwc_linear_rip(&other(lagging)->state))))
		return err;
	dwc_counter_extend(lagging, distance + chase.slack + SKID); /* in case the breakpoint is not hit any more */
	while ((status = dwc_replica_call(lagging, job_chase)) == WAY_AT_COMMON_POINT)
		if ((status = dwc_agree(lagging->engine))) {
			status = status < 0 ? status : WAY_MET;
			break;
		}
	if (status == WAY_MET && chase.stops <= LEARNED_FROM)
		learn_noise(lagging->engine);
	err = dwc_set_breakpoint(lagging, 0);
	return err ? err : status;
}

/* Bucket n counts values below 2^n (and not below 2^(n-1)). */
static void tally(uint64_t *histogram, uint64_t value)
{
	unsigned bucket = value ? 64 - (unsigned)__builtin_clzll(value) : 0;

	histogram[bucket < DWC_HISTOGRAM ? bucket : DWC_HISTOGRAM - 1]++;
}

/* Note the length of an element. Elements with a natural end are shorter, or the counter would have ended them. */
static void note_length(struct dwc_engine *e, uint64_t count)
{
	uint64_t permille = count * 1000 / e->slice.events;

	if (permille > e->stats.longest_permille)
		e->stats.longest_permille = permille;
}

/* Note where the counters have stopped both, for the histograms and for the next slice. */
static void note_stop(struct dwc_engine *e)
{
	uint64_t a = e->replicas[0].count, b = e->replicas[1].count;

	tally(e->stats.distance, a > b ? a - b : b - a);
	note_length(e, a > b ? a : b);
	for (int i = 0; i < 2; i++) {
		uint64_t count = e->replicas[i].count, budget = e->replicas[i].budget, late = count > budget ? count - budget : 0;

		if (!i)
			tally(e->stats.lateness, late);
		if (count >= budget && late <= NOISE) /* leave out ends by time, and after a long REP */
			follow(&e->slice.habits.skid, (int64_t)late);
	}
}

/* One try. Returns WAY_OVERRUN (try again), or as dwc_align() does. */
static int try_to_meet(struct dwc_engine *e, int number)
{
	int64_t lead = lead_of_b(e);
	struct dwc_replica *leader = &e->replicas[lead > 0], *lagging = other(leader);
	uint64_t distance = (uint64_t)(lead > 0 ? lead : -lead), to = after_repeat(leader), skid = (uint64_t)e->slice.habits.skid / SIXTEENTHS;
	int status;

	if (to || leader->state.events.interrupt.shadow || number % 4 == 3) {
		/* this point cannot be a target, since a shadow blocks breakpoints; or it has not worked several times */
		status = to ? pass_repeat(leader, to) : advance(leader, MOVE_ON + 7 * (unsigned)number);
		return status == WAY_OWN_EXIT ? dwc_align_to_natural(lagging, distance + e->slice.budget + SKID) : status;
	}
	if (distance > SKID + skid) {
		status = advance(lagging, distance - skid);
		return status == WAY_OWN_EXIT ? dwc_align_to_natural(leader, e->slice.budget + SKID) : status;
	}
	e->stats.catch_ups++;
	switch (status = catch_up(lagging, distance)) {
	case WAY_MET:
		return DWC_ALIGN_MET;
	case WAY_OWN_EXIT:
		return dwc_align_to_natural(leader, e->slice.budget + SKID);
	default:
		return status;
	}
}

/* Both were stopped by overflows: bring them to the same instruction. Returns an enum dwc_align_result or -errno. */
int dwc_align(struct dwc_engine *e)
{
	int status;

	for (int i = 0; i < 2; i++)
		dwc_inner_plan(&e->replicas[i], DWC_NO_LIMIT, 0);
	note_stop(e);
	for (int number = 0; number < TRIES; number++) {
		if (near(e->replicas[0].count, e->replicas[1].count) && !dwc_cannot_be_recorded(&e->replicas[0]) &&
		    (status = dwc_agree(e))) {
			if (status > 0)
				learn_noise(e);
			return status < 0 ? status : DWC_ALIGN_MET;
		}
		status = try_to_meet(e, number);
		if (status != WAY_OVERRUN)
			return status;
	}
	return DWC_ALIGN_MISSED;
}
