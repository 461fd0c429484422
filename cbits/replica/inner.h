/* Inner exits: exits within an element, which the replica's own devices answer. */
#ifndef DWC_REPLICA_INNER_H
#define DWC_REPLICA_INNER_H

#include <stdint.h>

#include "pc/pc.h"
#include "vcpu/exit.h"

struct dwc_engine;
struct dwc_replica;

/* The inner exits of a replica in the element, and its own devices. */
struct dwc_inner {
	uint32_t count;     /* inner exits so far, */
	uint32_t reads;     /* and how many of them were reads of sites */
	uint64_t flow;      /* a running hash of them and of their answers */
	struct dwc_pc *pc;  /* the devices' state, one of `pcs`; NULL: as at the element's start (dwc_engine.pc) */
	struct dwc_pc pcs[2];
	struct dwc_exit before; /* the last inner exit, without its data, */
	uint64_t answered_ns, clock_ns; /* after how much time it was answered, and what time its device saw */
	/* an exit ends the element although it could be an inner one: */
	uint32_t limit;     /* if `count` would become this; 1: every exit ends the element */
	uint64_t most_ns;   /* after it has run for so long; 0: by count only */
	int stopped;        /* the last exit did so, and the replica can go on as if it were an inner one */
};

/* The inner exits of a logged element: with them a replay starts from the same devices and ends at the same exit. */
struct dwc_inner_log {
	uint32_t count;
	uint64_t flow;
	uint64_t now_ns;  /* the guest clock, which stood still */
	struct dwc_pc pc; /* at the element's start; only if there were inner exits */
};

#define DWC_NO_LIMIT UINT32_MAX

void dwc_inner_begin(struct dwc_replica *r);
void dwc_inner_plan(struct dwc_replica *r, uint32_t limit, uint64_t most_ns);
int dwc_inner_pass(struct dwc_replica *r);
int dwc_inner_go_on(struct dwc_replica *r);
uint64_t dwc_inner_ns(const struct dwc_replica *r);
uint32_t dwc_inner_limit_to_meet(const struct dwc_replica *other);
struct dwc_pc *dwc_inner_pc(struct dwc_replica *r);
uint32_t dwc_inner_limit_of_both(const struct dwc_engine *e);
void dwc_inner_commit(struct dwc_engine *e);
int dwc_inner_same(const struct dwc_replica *a, const struct dwc_replica *b);

#endif
