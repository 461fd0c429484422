/* How long an element may take if no progress counter ends it. */
#ifndef DWC_REPLICA_LIMIT_H
#define DWC_REPLICA_LIMIT_H

#include <stdint.h>

struct dwc_engine;
struct dwc_pc;
struct dwc_replica;

uint64_t dwc_time_limit(const struct dwc_engine *e, const struct dwc_pc *pc, uint64_t now_ns);
int dwc_is_at_limit(const struct dwc_replica *r, uint64_t limit_ns);

#endif
