/* The time limit of an element: an interrupt has to be let in when its time has come. */
#include "replica/limit.h"

#include <stdatomic.h>

#include "engine.h"
#include "pc/interrupts.h"
#include "pc/pc.h"
#include "pc/sent.h"
#include "replica/clock.h"
#include "replica/replica.h"

#define NS_PER_S 1000000000ull
#define SOON_NS 20000000ull /* an element that takes longer does not end soon */
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
	if (r->may_be_cut && ran_ns >= SOON_NS && atomic_load(&r->engine->requests.soon))
		return 1;
	return inner->most_ns && inner->count &&
	       ran_ns - inner->answered_ns >= dwc_time_limit(r->engine, inner->pc, inner->clock_ns);
}
