/* Where the time of a run goes: at each moment the caller of the engine is at one activity, so their sums add up to the wall time. */
#ifndef DWC_ACCOUNT_H
#define DWC_ACCOUNT_H

#include <stdint.h>

struct dwc_engine;
struct dwc_replica;

enum dwc_activity {
	/* parts of an element, in turn or within each other */
	DWC_AT_BETWEEN,    /* between elements: inputs, interrupts, requests from outside */
	DWC_AT_FIRST_RUN,
	DWC_AT_SECOND_RUN, /* parallel: only what e1 had to wait for it */
	DWC_AT_REGISTERS,  /* reading those that do not come with an exit */
	DWC_AT_DIRTY_LOG,
	DWC_AT_COUNTER,    /* arming and reading the progress counter, and the kick of a slice */
	DWC_AT_HANDOVER,   /* between threads: a job is posted or has ended, and the other one has not noticed yet */
	DWC_AT_COMPARE_COMMIT,
	DWC_AT_DEVICE,     /* in C */
	DWC_AT_IDLE,       /* waiting for time or input to pass in reality */
	DWC_AT_PYTHON,     /* between two calls of the core */
	DWC_AT_DISCARDED,  /* runs of elements that were not committed */
	/* from here on: with all that they need, except waits for ticks and what is named */
	DWC_AT_START,      /* before the first element */
	DWC_AT_END,        /* after the last one */
	DWC_AT_ALIGNMENT,
	DWC_AT_ROLLBACK,   /* without the replay in it */
	DWC_AT_REPLAY,
	DWC_AT_SEARCH,
	DWC_AT_STEPS,
	DWC_AT_SCRUB,
	DWC_AT_RESTORE,    /* in place: between e1 and e2, and emptying the TLB before e1 */
	DWC_AT_FLUSH,      /* in place: of caches */
	DWC_AT_TICK_WAIT,  /* of the frozen TSC */
	DWC_ACTIVITIES
};

struct dwc_account {
	enum dwc_activity now;
	uint64_t since_ns;    /* 0: between runs, whose time belongs to the caller */
	uint64_t ns[DWC_ACTIVITIES];
	uint64_t first_run_ns, second_run_ns; /* of all elements before the present one */
};

void dwc_account_begin(struct dwc_engine *e);
void dwc_account_end(struct dwc_engine *e, int guest_ended);
void dwc_account(struct dwc_engine *e, enum dwc_activity to);
void dwc_account_from(struct dwc_engine *e, enum dwc_activity to, uint64_t from_ns);
void dwc_account_element(struct dwc_engine *e);
void dwc_account_discard(struct dwc_engine *e);
enum dwc_activity dwc_enter(struct dwc_replica *r, enum dwc_activity what);
void dwc_leave(struct dwc_replica *r, enum dwc_activity before);

#endif
