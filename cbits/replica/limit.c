/* The time limit of an element: an interrupt has to be let in when its time has come. */
#include "replica/limit.h"

#include <stdatomic.h>

#include "engine.h"
#include "pc/interrupts.h"
#include "pc/pc.h"
#include "pc/sent.h"
#include "replica/clock.h"
#include "replica/replica.h"
#include "sum.h"

#define NS_PER_S 1000000000ull
#define SOON_NS 20000000ull /* an element that takes longer does not end soon */
#define APART_NS 250000ull
#define SAME 4 /* a busy host can keep the guest from running between two kicks, but hardly between four */
#define STRETCH_MOST 16
#define LONGEST_WAIT_NS 64000000000ull /* a kernel that unpacks itself has no exit until it is done */

/* How long the element may run before an interrupt has to be let in: until the next timer interrupt, at least the patience, at most
 * a second (for input from outside). */
static uint64_t time_until_due(const struct dwc_engine *e, const struct dwc_pc *pc, uint64_t now_ns)
{
	uint64_t deadline = dwc_pc_deadline(pc, now_ns), left;

	if (dwc_pc_interrupt_pending(pc) || dwc_sent_wants_drain(&pc->sent)) /* a line that was printed waits, too */
		return e->config.patience_ns;
	if (deadline == UINT64_MAX)
		return NS_PER_S + e->config.patience_ns;
	left = deadline > now_ns ? deadline - now_ns : 0;
	if (left > NS_PER_S)
		left = NS_PER_S;
	left *= e->clock.host_base_ns ? 1 : e->config.clock_divisor;
	return left > e->config.patience_ns ? left : e->config.patience_ns;
}

/* Host time for which an element may go on, with these devices at that guest time. One that is cut by it is discarded; the limit is
 * raised from time to time so that long elements finish. */
uint64_t dwc_time_limit(const struct dwc_engine *e, const struct dwc_pc *pc, uint64_t now_ns)
{
	uint64_t limit = time_until_due(e, pc, now_ns), longest = limit > LONGEST_WAIT_NS ? limit : LONGEST_WAIT_NS;

	return limit * e->clock.patience_factor < longest ? limit * e->clock.patience_factor : longest;
}

/* Whether the run has to be cut, by its limit (0: it has none), since the caller waits for the element's end, or because the guest
 * has set a timer within the element. */
int dwc_is_at_limit(const struct dwc_replica *r, uint64_t limit_ns)
{
	const struct dwc_inner *inner = &r->inner;
	uint64_t ran_ns = dwc_ran_ns(r);

	if (!limit_ns || ran_ns >= limit_ns)
		return limit_ns != 0;
	if (r->engine->cut.meets && r->stretch_most && ran_ns >= r->wait_ns && dwc_waits_in_loop(r))
		return 1;
	if (r->may_be_cut && ran_ns >= SOON_NS && atomic_load(&r->engine->requests.soon))
		return 1;
	return inner->most_ns && inner->pc &&
	       ran_ns - inner->answered_ns >= dwc_time_limit(r->engine, inner->pc, inner->clock_ns) * r->stretch;
}

/* Set the limit of a run. A guest that computes may take up to `stretch_most` times as long as one that waits for something. */
void dwc_limit_set(struct dwc_replica *r, uint64_t limit_ns, uint32_t stretch_most)
{
	r->limit_ns = limit_ns;
	r->wait_ns = limit_ns / r->engine->clock.patience_factor;
	r->stretch = 1;
	r->stretch_most = stretch_most;
	r->seen.count = 0;
}

/* A run has come to its limit: let it go on, if the guest computes. To cut it would be in vain, since it is discarded then. */
int dwc_limit_stretches(struct dwc_replica *r)
{
	int soon = r->may_be_cut && atomic_load(&r->engine->requests.soon);

	if (soon || r->stretch >= r->stretch_most || dwc_waits_in_loop(r))
		return 0;
	r->limit_ns *= 2;
	r->stretch *= 2;
	return 1;
}

/* A run has ended by itself. If it took longer than one of a guest that waits may, it was worth to wait for. */
void dwc_limit_was_kept(const struct dwc_replica *r)
{
	struct dwc_clock *clock = &r->engine->clock;

	if (r->limit_ns && dwc_ran_ns(r) >= r->limit_ns / r->stretch / clock->patience_factor && clock->stretch < STRETCH_MOST)
		clock->stretch *= 2;
}

/* The run of a guest that computes was cut. If it had got more time, that was in vain. */
void dwc_limit_was_passed(const struct dwc_replica *r)
{
	if (dwc_ran_ns(r) >= r->limit_ns && r->stretch > 1)
		r->engine->clock.stretch /= 2;
}

static uint64_t sum_of_registers(const struct dwc_replica *r)
{
	return dwc_sum(0, &r->run->s.regs.regs, sizeof r->run->s.regs.regs);
}

/* A kick has found the guest somewhere. Right after another one it may not have run in between. */
void dwc_see(struct dwc_replica *r)
{
	struct dwc_seen *seen = &r->seen;
	unsigned at = seen->count % DWC_SEEN, kept = seen->count < DWC_SEEN ? seen->count : DWC_SEEN;
	uint64_t sum, since_ns = UINT64_MAX;

	if (seen->count && r->ended_ns - seen->last_ns < APART_NS)
		return;
	sum = sum_of_registers(r);
	seen->last_ns = r->ended_ns;
	for (unsigned i = 0; i < kept && since_ns == UINT64_MAX; i++)
		if (seen->sums[i] == sum)
			since_ns = seen->since_ns[i];
	seen->since_ns[at] = since_ns == UINT64_MAX ? dwc_ran_ns(r) : since_ns;
	seen->sums[at] = sum;
	seen->count++;
}

/* After how long a kick first found the registers as several have found them since; UINT64_MAX: none did. */
uint64_t dwc_in_loop_after_ns(const struct dwc_replica *r)
{
	const struct dwc_seen *seen = &r->seen;
	unsigned kept = seen->count < DWC_SEEN ? seen->count : DWC_SEEN;

	for (unsigned i = 0; i < kept; i++) {
		unsigned same = 0;

		for (unsigned k = i; k < kept; k++)
			same += seen->sums[i] == seen->sums[k];
		if (same >= SAME)
			return seen->since_ns[i];
	}
	return UINT64_MAX;
}

/* Whether kicks have found all registers the same several times since the last exit: the guest is in a loop that changes none of them,
 * and so waits for something else, such as an interrupt. Memory is not looked at: a loop that counts only there seems to wait, too. */
int dwc_waits_in_loop(const struct dwc_replica *r)
{
	return dwc_in_loop_after_ns(r) != UINT64_MAX;
}

/* Whether a kick has found it with the registers that the other one has now. */
int dwc_was_seen_like(const struct dwc_replica *r, const struct dwc_replica *other)
{
	uint64_t sum = sum_of_registers(other);
	unsigned kept = r->seen.count < DWC_SEEN ? r->seen.count : DWC_SEEN, i = 0;

	while (i < kept && r->seen.sums[i] != sum)
		i++;
	return i < kept;
}
