/* Replay: one VM runs recorded elements again. */
#ifndef DWC_ELEMENT_REPLAY_H
#define DWC_ELEMENT_REPLAY_H

#include <stdint.h>

#include "record/record.h"

struct dwc_engine;

/* What differs from the recording; one bit each. */
enum dwc_replay_part {
	DWC_REPLAYED_EXIT = 1 << 0,      /* another exit has ended the element */
	DWC_REPLAYED_DEVICES = 1 << 1,   /* inner exits, or their answers */
	DWC_REPLAYED_REGISTERS = 1 << 2, /* the exit's data, or registers that come with it */
	DWC_REPLAYED_XSAVE = 1 << 3,
	DWC_REPLAYED_MSRS = 1 << 4,
	DWC_REPLAYED_OTHERS = 1 << 5,    /* debug registers, or XCRs */
	DWC_REPLAYED_MEMORY = 1 << 6,
	DWC_REPLAYED_HANG = 1 << 7,      /* the element has no end */
	DWC_REPLAYED_STEPS = 1 << 8,     /* single steps have ended elsewhere */
};

struct dwc_replay {
	uint32_t differs;             /* enum dwc_replay_part */
	int tick_since;               /* the frozen TSC has ticked within an element since the checkpoint */
	uint32_t tries;               /* runs again of the current element */
	int begun;                    /* an element was replayed: from now on their numbers are consecutive */
	uint64_t wanted;              /* stop at the start of this element, counted from 1; 0: of none */
	uint64_t chain;
	int moves;                    /* single steps are moves within an element (within.c) */
	int stops, resumes;           /* debug registers stop the guest at the points; RFLAGS.RF leads on from one */
	struct dwc_recorded expected; /* the last element that was replayed, or that differs */
};

int dwc_replay(struct dwc_engine *e, const uint8_t *bytes, uint64_t length, uint64_t last, uint64_t *used);
int dwc_replay_finish(struct dwc_engine *e);

#endif
