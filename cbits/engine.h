/* The mechanism of double execution: two replicas, a checkpoint, and the loop that runs elements.
 * What functions answer: status.h. */
#ifndef DWC_ENGINE_H
#define DWC_ENGINE_H

#include <stdatomic.h>
#include <stdint.h>

#include "element/align.h"
#include "element/steps.h"
#include "memory/pages.h"
#include "pc/pc.h"
#include "phase.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sites/search.h"
#include "sites/sites.h"
#include "stats.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

struct dwc_strategy_ops;

enum dwc_strategy { DWC_OFF, DWC_SEQUENTIAL, DWC_PARALLEL, DWC_IN_PLACE, DWC_STRATEGIES };
enum dwc_flush { DWC_FLUSH_PGE, DWC_FLUSH_MEMSLOT };
enum dwc_cache_flush { DWC_CACHE_KEPT, DWC_CACHE_DIRTY, DWC_CACHE_ALL }; /* in place, before e2 */

struct dwc_engine {
	struct dwc_replica replicas[2];
	enum dwc_phase phase;
	enum dwc_strategy strategy;
	const struct dwc_strategy_ops *ops;
	int flush, nslots, out_rip_after;
	int spin_turns;    /* how long a thread looks for work before it sleeps: 0 on one CPU */
	int exact_windows; /* an interrupt window ends an element at an architectural point */
	int waiting;       /* elements that a due interrupt could not be injected into, where they are not */
	uint64_t ram_bytes;
	uint8_t *checkpoint_ram;
	struct dwc_state checkpoint;
	struct dwc_exit checkpoint_exit; /* the exit at which the checkpoint stands */
	uint64_t *sums, checkpoint_sum;  /* of its pages, and of the two above */
	uint64_t *new_sums;              /* of the changed pages, in a commit */
	/* elements committed since: compared in all but the groups that cost an ioctl, inputs logged */
	struct dwc_logged log[DWC_LOG_ELEMENTS];
	uint32_t log_count, checkpoint_every; /* a checkpoint at least every so many elements */
	const struct dwc_exit *expected;      /* in a replay */
	uint64_t replay_ns;                   /* and how long it may take */
	struct dwc_state committed;           /* the synced groups of the last logged element: a replay must arrive there */
	int checkpoint_due;                   /* this element ends with one: the replicas read all groups */
	/* guest time since memory was compared last, and how long it may be (docs/decisions/0003) */
	uint64_t unseen_ns, memory_every_ns;
	struct dwc_exit exit;                 /* of the last committed element */
	struct dwc_inputs inputs;
	int has_pending_io; /* it is an I/O exit whose instruction is not finished */
	int has_xcrs;
	uint32_t msr_count;
	uint32_t msr_index[DWC_MAX_MSRS];
	uint8_t *idle; /* a page: elements since its content changed while it stayed writable */
	uint32_t idle_limit;
	struct dwc_dirty *dirty; /* of this element; room for all of RAM, as in the next one */
	uint32_t *changed;       /* page numbers: not as in the checkpoint */
	uint32_t dirty_count, changed_count, cold_count;
	int compare_all; /* with the checkpoint as well */
	/* slices */
	int counting;             /* there is a progress counter */
	int arm, rearm;           /* this element starts a new slice; it must, the counts are void */
	uint32_t counter_type;    /* perf_event_attr */
	uint64_t counter_config;
	uint64_t slice_ns, slice_events, budget;
	uint64_t slice_used_ns; /* guest time since the counters were armed */
	struct dwc_counter_habits habits;
	/* the frozen TSC, where the host scales it: KVM's ratio, with so many fraction bits; 0: it runs as the host has it */
	uint64_t tsc_ratio, tsc_tick, tsc_host_khz;
	uint32_t tsc_bits;
	uint64_t events_per_ms;   /* what the counter counts in a millisecond of guest time */
	/* in place */
	int cache_flush;
	uint8_t *evict; /* room for twice the last-level cache: reading it leaves nothing else there */
	uint64_t evict_bytes;
	struct dwc_msrs msrs_given; /* to KVM, last */
	/* time */
	uint64_t guest_ns, clock_divisor;
	uint64_t patience_ns; /* how long an element may keep a due interrupt waiting */
	uint64_t patience_factor; /* this element gets so many times as long */
	uint64_t hang_ns;     /* how much longer than the other a replica may take */
	uint64_t host_base_ns; /* nonzero: the guest clock follows the host from here */
	int halted;     /* after HLT, until an interrupt is pending */
	int idle_waits; /* idle time passes at the host's pace, even of a virtual clock */
	atomic_int stop, attention;
	struct dwc_pc pc; /* devices in C */
	int has_backlog; /* input waits for room in the UART */
	uint32_t tsc_aux; /* the MSR */
	/* learned time sites */
	int user_trap;       /* enum dwc_user_trap */
	int icebp_rip_after; /* where RIP stands at the debug exit of an ICEBP */
	int user_sites;      /* how many are in ring 3, and need debug exits */
	uint32_t site_count;
	struct dwc_site sites[DWC_MAX_SITES];
	uint64_t site_reads, site_time, site_base; /* how many, the last time, and what is read at guest time 0 */
	struct dwc_search search;
	struct dwc_steps steps;
	/* the last divergence */
	uint32_t diff;
	uint32_t diff_count;
	uint64_t diff_gpa[DWC_MAX_DIFFS];
	uint64_t elements_limit; /* stop after so many committed in all; 0: none */
	/* the scrubber: 0 bytes a second: off */
	uint64_t scrub_bytes_per_s, scrub_from_ns, scrub_at, repair_gpa;
	int repair_copy; /* enum dwc_copy; DWC_COPIES: none was right */
	/* visits: the caller gets in at both ends of an element, and between its runs in place, from this one on (UINT64_MAX: never) */
	uint64_t visit_from;
	struct dwc_stats stats;
};

int dwc_engine_start(struct dwc_engine *e);
void dwc_engine_stop(struct dwc_engine *e);
void dwc_engine_answer(struct dwc_engine *e, const uint8_t *data, uint64_t length);
int dwc_engine_enter(struct dwc_engine *e, int replica);
int dwc_engine_read_again(struct dwc_engine *e, int replica);
int dwc_engine_run_for(struct dwc_engine *e, int replica, uint64_t ns);
int dwc_engine_move(struct dwc_engine *e, int replica, int cpu);
void dwc_engine_request_stop(struct dwc_engine *e);
void dwc_engine_request_attention(struct dwc_engine *e);

#endif
