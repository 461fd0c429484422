/* The guest clock. It stands still in an element, unless there is one run only. */
#ifndef DWC_REPLICA_CLOCK_H
#define DWC_REPLICA_CLOCK_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

struct dwc_clock {
	uint64_t guest_ns;
	uint64_t host_base_ns;     /* nonzero: the guest clock follows the host from here */
	uint32_t stretch;          /* a guest that computes may take so many times as long before it is cut */
	uint64_t patience_factor;  /* elements get so many times as long, until it is set anew */
	int halted;                /* after HLT, until an interrupt is pending */
	int idle_waits;            /* idle time passes at the host's pace, even of a virtual clock */
};

uint64_t dwc_ran_ns(const struct dwc_replica *r);
uint64_t dwc_clock_after(const struct dwc_engine *e, uint64_t ran_ns);

#endif
