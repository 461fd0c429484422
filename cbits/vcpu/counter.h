/* The progress counter: a perf event that counts in the guest only. */
#ifndef DWC_VCPU_COUNTER_H
#define DWC_VCPU_COUNTER_H

#include <signal.h>
#include <stdint.h>

#define DWC_LEAST_BUDGET 1000 /* events; if the guest is slow (in an emulator), slices are longer than asked for */
#define DWC_OVERFLOW_SIGNAL (SIGRTMIN + 5)

struct dwc_replica;

int dwc_counter_open(struct dwc_replica *r);
void dwc_counter_close(struct dwc_replica *r);
int dwc_counter_arm(struct dwc_replica *r, uint64_t budget);
int dwc_counter_disarm(struct dwc_replica *r);
int dwc_counter_extend(struct dwc_replica *r, uint64_t more);
int dwc_counter_read(struct dwc_replica *r, uint64_t *count);
int dwc_counter_try(struct dwc_replica *r, uint64_t budget, uint64_t *count);

#endif
