/* A recording: a log of committed elements from which one VM can run them again (docs/replay.md). */
#ifndef DWC_RECORD_RECORD_H
#define DWC_RECORD_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "pc/pc.h"

struct dwc_engine;
struct dwc_replica;

#define DWC_RECORD_DRAIN (256u << 10) /* bytes at which the caller is asked to take them */
#define DWC_RECORD_ALIGN 8
#define DWC_RECORD_MOST (16u << 20) /* bytes of a record */

/* Records are in the order in which things happened. What is between two elements belongs to the start of the second. */
enum dwc_record_kind {
	DWC_RECORD_ELEMENT = 1, /* struct dwc_recorded, and the answer to the exit before it, if that waits for one */
	DWC_RECORD_MEMORY,      /* struct dwc_recorded_bytes: the VMM has written guest memory at `at` */
	DWC_RECORD_DEVICES,     /* the same: bytes of struct dwc_pc from offset `at` are other ones than the element before has left */
	DWC_RECORD_SITE,        /* the same: a struct dwc_site (replica/hostreads.h), number `at` of the learned ones, whose trap inner exits meet */
	DWC_RECORD_CHECKPOINT,  /* struct dwc_recorded_checkpoint: the last committed state was made one, between two elements */
	DWC_RECORD_END,         /* struct dwc_record_head alone: the recording is whole */
};

/* What each record begins with. `bytes` counts all of it, the head as well, and is a multiple of DWC_RECORD_ALIGN. */
struct dwc_record_head {
	uint32_t kind, bytes;
};

struct dwc_recorded_bytes {
	struct dwc_record_head head;
	uint64_t at, length;
	uint8_t data[];
};

/* Sums at a checkpoint: of registers that are read at checkpoints only (state.h), and of all RAM. */
struct dwc_recorded_sums {
	uint64_t xsave, msrs, others, memory;
};

struct dwc_recorded_checkpoint {
	struct dwc_record_head head;
	struct dwc_recorded_sums sums;
};

/* How the element was ended, and so how it is ended again. */
enum dwc_recorded_end {
	DWC_ENDED_NATURALLY, /* by its exit, after `inner_exits` others */
	DWC_ENDED_BY_STEPS,  /* after `distance` single steps */
	DWC_ENDED_SETTLED,   /* a settling element */
	DWC_ENDED_AT_POINT,  /* at `rip`, where nothing but the VMM ends it: by the progress counter, after about `distance` events; or in
			      * a loop in which the guest waits (element/loop.c), distance 0 */
	DWC_RECORDED_ENDS
};

/* A committed element. Sums are those of sum.h over what is compared, without what may differ by itself. */
struct dwc_recorded {
	struct dwc_record_head head;
	uint64_t number;                                 /* how many were committed before it */
	uint64_t guest_ns;                               /* the guest clock at its start */
	uint64_t ran_ns;                                 /* of e1: what replays may take depends on it */
	uint32_t ended, checkpoint;                      /* enum dwc_recorded_end; checkpoint: it ends with one, and `sums` are there */
	uint64_t distance, rip;                          /* rip: linear, at its end */
	uint32_t inner_exits, user_traps;                /* user_traps: there are sites in ring 3 (sites.h) */
	uint64_t flow;                                   /* a hash of the inner exits */
	uint64_t registers;                              /* of the exit and the synced groups */
	struct dwc_recorded_sums sums;
	uint64_t chain;                                  /* of all else in this record, and of the chain of the element before */
	uint8_t exit[32];                                /* struct dwc_exit without its data */
	uint32_t answer_bytes, inputs_bytes;
	uint8_t inputs[];                                /* struct dwc_inputs up to io_data; then answer_bytes of that */
};

/* The log as far as it has not been taken yet, and what a replay knows at its end. */
struct dwc_recorder {
	uint8_t *bytes;        /* NULL: nothing is recorded */
	uint64_t used, room;
	int lost;              /* there was no memory for a record */
	int of_one_element;    /* it ends with the next checkpoint, */
	int over;              /* and has come to it */
	int without_loops;     /* no element may end in a loop, since breakpoints do not work here, by which a replay would come to it */
	struct dwc_pc pc;      /* as the last element has left the devices */
	uint64_t chain;
	uint64_t counted;      /* by the progress counter, up to the last element's end */
};

int dwc_record_begin(struct dwc_engine *e, int without_loops);
int dwc_record_can_begin_at_element(const struct dwc_engine *e);
int dwc_record_begin_at_element(struct dwc_engine *e, int without_loops);
void dwc_record_end(struct dwc_engine *e);
void dwc_record_memory(struct dwc_engine *e, uint64_t gpa, const uint8_t *data, uint64_t length);
void dwc_record_for_start(struct dwc_engine *e);
void dwc_record_site(struct dwc_engine *e, uint32_t number);
void dwc_record_checkpoint(struct dwc_engine *e);
void dwc_record_element(struct dwc_engine *e, enum dwc_recorded_end ended, uint64_t distance);
int dwc_record_wants_drain(const struct dwc_engine *e);
uint64_t dwc_record_chain(uint64_t chain, const struct dwc_recorded *element);
uint64_t dwc_recorded_answer(const struct dwc_engine *e);
uint64_t dwc_recorded_registers(const struct dwc_replica *r);

#endif
