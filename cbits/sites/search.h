/* The search by single steps for an instruction that reads what is the host's. */
#ifndef DWC_SITES_SEARCH_H
#define DWC_SITES_SEARCH_H

#include <stdint.h>

#include "vcpu/insn.h"

struct dwc_engine;
struct dwc_replica;

/* A search for a host's value from the checkpoint on. In: kinds (a bit for each DWC_READ_*), limit (single steps), limit_ns
 * (of single steps), events (of a free run by the progress counter; 0: no such bound). The rest is what was found. */
struct dwc_search {
	uint32_t kinds;
	uint64_t limit, limit_ns, events, steps, gpa, linear;
	uint32_t exit_reason;      /* that ended it, */
	uint64_t rip;              /* and where */
	struct dwc_insn read;      /* the instruction found, or OTHER */
	int user;                  /* in ring 3 */
	int long_mode;             /* in 64-bit code */
	int split;                 /* over two pages that are no neighbours in guest memory */
	int timed_out;
};

int dwc_is_wanted(const struct dwc_search *s, const struct dwc_insn *insn);
int dwc_at_host_read(struct dwc_replica *r, struct dwc_search *s);
int dwc_search(struct dwc_engine *e, int replica, int (*job)(struct dwc_replica *));
int dwc_search_by_steps(struct dwc_engine *e, int replica);

#endif
