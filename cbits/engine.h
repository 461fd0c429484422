/* The mechanism of double execution: two replicas, a checkpoint, and the loop that runs elements.
 * The results of functions are in status.h. */
#ifndef DWC_ENGINE_H
#define DWC_ENGINE_H

#include <stdint.h>

#include "account.h"
#include "config.h"
#include "element/between.h"
#include "element/inplace.h"
#include "element/past.h"
#include "element/replay.h"
#include "element/run.h"
#include "element/slice.h"
#include "element/steps.h"
#include "memory/copies.h"
#include "memory/guard.h"
#include "memory/pages.h"
#include "memory/scrub.h"
#include "memory/undo.h"
#include "pc/pc.h"
#include "phase.h"
#include "record/record.h"
#include "replica/clock.h"
#include "replica/hostreads.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "sites/search.h"
#include "stats.h"
#include "vcpu/exit.h"
#include "vcpu/points.h"
#include "vcpu/tsc.h"

struct dwc_strategy_ops;

struct dwc_engine {
	struct dwc_config config; /* as passed to dwc_engine_init() */
	const struct dwc_strategy_ops *ops;
	int vms, protects; /* copies of those in ops, for lower floors */
	struct dwc_replica replicas[2];
	int nslots; /* of RAM, in each VM */
	/* the element */
	enum dwc_phase phase;
	struct dwc_inputs inputs;
	struct dwc_exit exit; /* of the last committed element */
	int has_pending_io;   /* that exit is an I/O exit whose instruction is not finished */
	uint32_t inner_limit; /* after a cut or a divergence: at which exit the element is to end, though it could be an inner one */
	int waiting;          /* elements that have kept a due interrupt waiting, if windows are not exact */
	struct dwc_checkpoint checkpoint;
	struct dwc_log log;
	struct dwc_in_use in_use;
	struct dwc_dirty_pages dirty;
	struct dwc_divergence divergence;
	struct dwc_slice slice;
	struct dwc_cut cut;
	struct dwc_clock clock;
	struct dwc_tsc tsc;
	struct dwc_in_place in_place;
	struct dwc_requests requests;
	struct dwc_pc pc; /* devices in C */
	struct dwc_sites sites;
	struct dwc_search search;
	struct dwc_steps steps;
	struct dwc_points points;
	struct dwc_scrub scrub;
	struct dwc_recorder recorder;
	struct dwc_replay replay;
	struct dwc_past past;
	struct dwc_undo_log undo;
	struct dwc_undo kept; /* kept.h */
	struct dwc_stats stats;
	struct dwc_account account;
};

void dwc_engine_answer(struct dwc_engine *e, const uint8_t *data, uint64_t length);
int dwc_engine_enter(struct dwc_engine *e, int replica);
int dwc_engine_read_again(struct dwc_engine *e, int replica);
int dwc_engine_run_for(struct dwc_engine *e, int replica, uint64_t ns);
int dwc_engine_move(struct dwc_engine *e, int replica, int cpu);
void dwc_engine_request_stop(struct dwc_engine *e);
void dwc_engine_request_attention(struct dwc_engine *e, int soon);
void dwc_engine_stood(struct dwc_engine *e, uint64_t ns);

#endif
