/* Between two elements: the device that the last one ended for, requests from outside, idle time. */
#ifndef DWC_ELEMENT_BETWEEN_H
#define DWC_ELEMENT_BETWEEN_H

#include <stdint.h>
#include <stdatomic.h>

struct dwc_engine;

/* What is asked of the engine while it runs. */
struct dwc_requests {
	atomic_int stop, attention;
	atomic_int soon;           /* attention is asked for soon: an element without an end in sight is cut */
	atomic_int sleeping;       /* the engine waits for attention, as the guest is idle */
	int watches, watched;      /* whether there is an epoll descriptor of networks, and which: their news are a request for attention */
	uint64_t elements_limit;   /* stop after so many committed in all; 0: none */
	uint64_t until_ns;         /* the same when the guest clock has come to this; 0: never */
	uint64_t visit_from;       /* the caller gets in at both ends of an element, and between its runs in place, from this one on */
	unsigned backlog;          /* serial ports whose input waits for room in their FIFO, a bit each */
	int settle;                /* the next element is to be a settling one (settle.c) */
	int by_instruction;        /* a debugger steps: no interrupt starts an element, and each access to a device ends it */
};

int dwc_is_stop_requested(const struct dwc_engine *e);
int dwc_between_elements(struct dwc_engine *e);
void dwc_engine_watch(struct dwc_engine *e, int fd);
int dwc_act(struct dwc_engine *e);

#endif
