/* How long an element may take if no progress counter ends it. */
#ifndef DWC_REPLICA_LIMIT_H
#define DWC_REPLICA_LIMIT_H

#include <stdint.h>

struct dwc_engine;
struct dwc_pc;
struct dwc_replica;

/* What kicks have found since the last exit: sums of the registers. */
#define DWC_SEEN 16
struct dwc_seen {
	uint64_t sums[DWC_SEEN], since_ns[DWC_SEEN], last_ns; /* since_ns: how long into the run a kick first found these */
	unsigned count;
};

uint64_t dwc_time_limit(const struct dwc_engine *e, const struct dwc_pc *pc, uint64_t now_ns);
int dwc_is_at_limit(const struct dwc_replica *r, uint64_t limit_ns);
void dwc_limit_set(struct dwc_replica *r, uint64_t limit_ns, uint32_t stretch_most);
int dwc_limit_stretches(struct dwc_replica *r);
void dwc_limit_was_kept(const struct dwc_replica *r);
void dwc_limit_was_passed(const struct dwc_replica *r);
void dwc_see(struct dwc_replica *r);
int dwc_waits_in_loop(const struct dwc_replica *r);
uint64_t dwc_in_loop_after_ns(const struct dwc_replica *r);
int dwc_was_seen_like(const struct dwc_replica *r, const struct dwc_replica *other);

#endif
