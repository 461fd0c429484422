/* Snapshots of a replay on its way, to which it can go back. */
#ifndef DWC_ELEMENT_PAST_H
#define DWC_ELEMENT_PAST_H

#include <stdint.h>

#include "memory/undo.h"
#include "pc/pc.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

struct dwc_engine;

#define DWC_MOST_SNAPSHOTS 64

/* A committed state that is the checkpoint, without RAM: `undo` has the pages that were written between it and the next snapshot. */
struct dwc_snapshot {
	struct dwc_state state;
	struct dwc_exit exit;
	struct dwc_pc pc;
	uint64_t committed, guest_ns, chain;
	int begun;
	struct dwc_undo undo;
};

struct dwc_past {
	struct dwc_snapshot *at; /* in their order */
	uint32_t count;
};

int dwc_past_can_keep(const struct dwc_engine *e);
int dwc_past_keep(struct dwc_engine *e);
int dwc_past_thin(struct dwc_engine *e, uint32_t number);
int dwc_past_go_back(struct dwc_engine *e, uint32_t number);
void dwc_past_free(struct dwc_engine *e);

#endif
