/* The exact stop: both replicas were kicked out of the guest by their counters, some instructions late
 * and not equally late. The one behind is brought to where the other stands: by its counter over a long
 * way, then by a breakpoint at the other's RIP. Equal registers and equal memory are the proof; counts
 * say only who is behind and when to give up (docs/progress.md). */
#include "core.h"

#include <errno.h>

#define TRIES 24
#define SKID 192 /* stop short of the other by this much; a longer skid costs another try */
#define MOVE_ON 24
#define NOISE 1024 /* equal registers with counts further apart are another turn of a loop */
#define NOISE_A_STOP 2 /* many CPUs count too much at each VM entry */
#define GIVE_UP 512
#define NATURAL 1
#define DR6_B0 1u

static struct dwc_replica *other(struct dwc_replica *r)
{
	return &r->engine->replicas[!r->index];
}

/* Without RF the instruction at the breakpoint would hit it again (SDM 3B 18.3.1.1). */
static void resume_past(struct dwc_replica *r)
{
	r->run->s.regs.regs.rflags |= DWC_RFLAGS_RF;
	r->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

/* An interrupt shadow blocks breakpoints, and a REP instruction is entered many times at one RIP. */
static int is_target(struct dwc_replica *r)
{
	uint8_t code[2];

	if (r->state.events.interrupt.shadow)
		return 0;
	dwc_read_code(r, dwc_linear_rip(&r->state), code, sizeof code);
	return code[0] != 0xf2 && code[0] != 0xf3 && !(code[0] == 0x66 && (code[1] == 0xf2 || code[1] == 0xf3));
}

/* Run until `more` is counted. Returns DWC_SLICE_END, NATURAL (an exit of the guest's own), or an error. */
static int job_move(struct dwc_replica *r)
{
	int status;

	if ((status = dwc_counter_extend(r, r->move)))
		return status;
	r->most_ns = 0;
	r->started_ns = dwc_now_ns();
	status = dwc_replica_run(r, 0);
	return status ? status : NATURAL;
}

static int move(struct dwc_replica *r, uint64_t more)
{
	r->move = more;
	return dwc_replica_call(r, job_move);
}

/* The other has ended by itself: so must this one, soon. */
int dwc_align_to_natural(struct dwc_replica *r, uint64_t limit)
{
	int status = move(r, limit);

	if (status == NATURAL)
		return 0;
	if (status != DWC_SLICE_END)
		return status;
	r->engine->diff = DWC_DIFF_HANG;
	return DWC_DIVERGED;
}

/* Does all state agree here? Compares memory, so only where registers already do. */
static int agree(struct dwc_engine *e)
{
	int err;

	if (dwc_state_compare_synced(&e->replicas[0].state, &e->replicas[1].state, &e->stats))
		return 0;
	for (int i = 0; i < 2; i++)
		if ((err = dwc_replica_call(&e->replicas[i], dwc_pages_harvest)) ||
		    (err = dwc_replica_call(&e->replicas[i], dwc_replica_read_state)))
			return err;
	return !dwc_state_compare(&e->replicas[0].state, &e->replicas[1].state, &e->stats) && !dwc_pages_compare(e, 1);
}

static int near(uint64_t a, uint64_t b, uint64_t stops)
{
	return (a > b ? a - b : b - a) <= NOISE + NOISE_A_STOP * stops;
}

enum catch_up { CAUGHT_UP = 1000, OVERRUN, ENDED };

/* A catch-up under way: counts at the start and now, and how many debug exits it may and did take. */
struct chase {
	uint64_t theirs, mine, stops, most_stops;
};

/* On the thread of the one behind, to the next hit of the breakpoint where all registers agree. 0: there it stands. */
static int job_chase(struct dwc_replica *r)
{
	struct chase *chase = r->chase;
	struct dwc_replica *leader = other(r);
	int status;

	r->most_ns = 0;
	while (chase->stops++ < chase->most_stops) {
		r->started_ns = dwc_now_ns();
		if (r->state.regs.rip == leader->state.regs.rip)
			resume_past(r);
		if ((status = dwc_replica_run(r, 0)))
			return status == DWC_SLICE_END ? OVERRUN : status;
		if (r->exit.reason != KVM_EXIT_DEBUG || !(r->exit.info & DR6_B0)) /* a time site is an exit of the guest's own */
			return ENDED;
		r->engine->stats.debug_exits++;
		if (dwc_state_compare_synced(&r->state, &leader->state, &r->engine->stats))
			continue;
		if ((status = dwc_counter_read(r, &chase->mine)))
			return status;
		if (near(chase->mine, chase->theirs, chase->stops))
			return 0;
	}
	return OVERRUN;
}

static int job_start_chase(struct dwc_replica *r)
{
	const struct chase *chase = r->chase;

	return dwc_counter_extend(r, chase->theirs - chase->mine + GIVE_UP + NOISE_A_STOP * chase->most_stops);
}

/* From hit to hit until it agrees with the leader. When it is beyond by more than noise can explain, it was ahead. */
static int catch_up(struct dwc_replica *behind, uint64_t mine, uint64_t theirs)
{
	/* each stop is an instruction on, at least */
	struct chase chase = { .theirs = theirs, .mine = mine, .most_stops = theirs - mine + GIVE_UP };
	int err, status;

	behind->chase = &chase;
	if ((err = dwc_set_breakpoint(behind, dwc_linear_rip(&other(behind)->state))) ||
	    (err = dwc_replica_call(behind, job_start_chase)))
		return err;
	while (!(status = dwc_replica_call(behind, job_chase)))
		if ((status = agree(behind->engine))) {
			status = status < 0 ? status : CAUGHT_UP;
			break;
		}
	err = dwc_set_breakpoint(behind, 0);
	return err ? err : status;
}

/* Bucket n counts values below 2^n (and not below 2^(n-1)). */
static void tally(uint64_t *histogram, uint64_t value)
{
	unsigned bucket = value ? 64 - (unsigned)__builtin_clzll(value) : 0;

	histogram[bucket < DWC_HISTOGRAM ? bucket : DWC_HISTOGRAM - 1]++;
}

/* Elements with an end of their own are shorter: the counter would have ended them. */
static void note_length(struct dwc_engine *e, uint64_t count)
{
	uint64_t permille = count * 1000 / e->slice_events;

	if (permille > e->stats.longest_permille)
		e->stats.longest_permille = permille;
}

static int settle(struct dwc_engine *e, uint64_t *counts)
{
	for (int i = 0; i < 2; i++) {
		int err = dwc_counter_read(&e->replicas[i], &counts[i]);

		if (err)
			return err;
	}
	return 0;
}

/* Both were kicked: make them stand at the same instruction. 0: they do (by state), or both ended by themselves;
 * e->agreed tells which. DWC_DIVERGED: no point was found. */
int dwc_align(struct dwc_engine *e)
{
	uint64_t counts[2], distance;
	int err;

	for (int try = 0; try < TRIES; try++) {
		struct dwc_replica *leader, *behind;

		if ((err = settle(e, counts)))
			return err;
		distance = counts[0] > counts[1] ? counts[0] - counts[1] : counts[1] - counts[0];
		if (!try) {
			tally(e->stats.distance, distance);
			note_length(e, counts[0] > counts[1] ? counts[0] : counts[1]);
			tally(e->stats.lateness, counts[0] > e->replicas[0].budget ? counts[0] - e->replicas[0].budget : 0);
		}
		if (near(counts[0], counts[1], 0) && (err = agree(e))) {
			e->agreed = err > 0;
			return err < 0 ? err : 0;
		}
		leader = &e->replicas[counts[1] > counts[0]];
		behind = other(leader);
		/* nobody can be brought here, or this point did not work out */
		if (!is_target(leader) || try % 4 == 3) {
			if ((err = move(leader, MOVE_ON + 7 * (unsigned)try)) == NATURAL)
				return dwc_align_to_natural(behind, distance + e->budget + SKID);
			if (err != DWC_SLICE_END)
				return err;
			continue;
		}
		if (distance > 2 * SKID) {
			if ((err = move(behind, distance - SKID)) == NATURAL)
				return dwc_align_to_natural(leader, e->budget + SKID);
			if (err != DWC_SLICE_END)
				return err;
			continue;
		}
		e->stats.catch_ups++;
		switch (err = catch_up(behind, counts[behind->index], counts[leader->index])) {
		case CAUGHT_UP:
			e->agreed = 1;
			return 0;
		case ENDED:
			return dwc_align_to_natural(leader, e->budget + SKID);
		case OVERRUN:
			continue;
		default:
			return err;
		}
	}
	e->diff = DWC_DIFF_HANG;
	return DWC_DIVERGED;
}
