/* The search by single steps for an instruction that reads a value of the host. */
#ifndef DWC_SITES_SEARCH_H
#define DWC_SITES_SEARCH_H

#include <stdint.h>

#include "vcpu/insn.h"

struct dwc_engine;
struct dwc_replica;

/* A search for a read of the host, from the checkpoint on. Inputs: kinds (a bit for each DWC_READ_*), limit (single steps), limit_ns
 * (time), events (of the progress counter, for a scan; 0: no limit). The other fields are the result. */
struct dwc_search {
	uint32_t kinds;
	uint32_t inner_limit;      /* it ends at this exit at the latest, if not at an earlier one (replica/inner.h) */
	uint64_t limit, limit_ns, events, steps, gpa, linear;
	uint32_t exit_reason;      /* of the exit that ended it, */
	uint64_t rip;              /* and where */
	struct dwc_insn read;      /* the instruction found, or OTHER */
	int user;                  /* in ring 3 */
	int long_mode;             /* in 64-bit code */
	int split;                 /* crosses into a page that is not adjacent in guest memory */
	int timed_out;
};

int dwc_is_wanted(const struct dwc_search *s, const struct dwc_insn *insn);
int dwc_at_host_read(struct dwc_replica *r, struct dwc_search *s);
int dwc_search(struct dwc_engine *e, int (*job)(struct dwc_replica *));
int dwc_search_by_steps(struct dwc_engine *e);

#endif
