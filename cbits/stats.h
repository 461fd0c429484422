/* Counters over the run of a machine. */
#ifndef DWC_STATS_H
#define DWC_STATS_H

#include <stdint.h>

#include "status.h"

#define DWC_HISTOGRAM 24

struct dwc_stats {
	uint64_t committed, rollbacks, pages_compared, pages_hot_max, pages_copied;
	uint64_t by_end[64]; /* indexed by KVM_EXIT_* */
	uint64_t inner_exits;
	uint64_t normalised_rf, normalised_unusable;
	/* ends by an overflow: debug exceptions and catch-ups that they took; |n1 - n2| and skid of e1 by powers of two */
	uint64_t debug_exits, catch_ups, distance[DWC_HISTOGRAM], lateness[DWC_HISTOGRAM];
	uint64_t longest_ns, longest_permille; /* longest element, by time and by the count relative to a slice */
	uint64_t tick_waits; /* before entries that would have met a tick of the frozen TSC */
	uint64_t checkpoint_repairs; /* pages that a rollback found damaged in the checkpoint */
	uint64_t scrub_pages, scrub_passes, scrub_repairs[DWC_COPIES + 1]; /* the last one: no copy was right */
	uint64_t handovers; /* jobs that one thread has given to the other */
};

#endif
