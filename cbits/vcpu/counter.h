/* The progress counter: a perf event that counts in the guest only. */
#ifndef DWC_VCPU_COUNTER_H
#define DWC_VCPU_COUNTER_H

#include <signal.h>
#include <stdint.h>

#define DWC_LEAST_BUDGET 1000 /* events; if the guest is slow (in an emulator), slices are longer than asked for */
#define DWC_OVERFLOW_SIGNAL (SIGRTMIN + 5)

struct dwc_replica;
struct perf_event_mmap_page;

/* The event of a thread. It counts in all VMs that the thread runs, and is booked to the replica that has run. */
struct dwc_counter {
	int fd;
	struct perf_event_mmap_page *page; /* to read it without a system call */
	const struct dwc_replica *counted; /* to whom events are booked */
	int due;                           /* the overflow has to be set anew before that one's next entry */
	uint64_t booked, fires;            /* the event's count up to the last booking, and at the next overflow */
};

int dwc_counter_open(struct dwc_replica *r);
void dwc_counter_close(struct dwc_replica *r);
void dwc_counter_arm(struct dwc_replica *r, uint64_t budget);
void dwc_counter_disarm(struct dwc_replica *r);
void dwc_counter_extend(struct dwc_replica *r, uint64_t more);
int dwc_counter_enter(struct dwc_replica *r);
int dwc_counter_exit(struct dwc_replica *r);
int dwc_counter_try(struct dwc_replica *r, uint64_t budget, uint64_t *count);

#endif
