/* Exits: what is kept of a return of KVM_RUN, to be compared and logged. */
#ifndef DWC_VCPU_EXIT_H
#define DWC_VCPU_EXIT_H

#include <stdint.h>

#define DWC_IO_BYTES 4096

struct dwc_engine;
struct dwc_replica;

/* An exit as it is compared, without anything host-specific (data_offset, flags). */
struct dwc_exit {
	uint32_t reason;  /* KVM_EXIT_* */
	uint8_t is_write; /* guest to device */
	uint8_t size;     /* bytes an item */
	uint16_t port;
	uint32_t count; /* items (string I/O) */
	uint64_t gpa;   /* MMIO; the index of an MSR */
	uint64_t info;  /* debug: DR6; internal error: suberror; fail entry: hardware reason */
	uint8_t data[DWC_IO_BYTES];
};

void dwc_describe_exit(struct dwc_replica *r);
void dwc_replica_ends_by(struct dwc_replica *r, uint32_t reason);
uint64_t dwc_exit_length(const struct dwc_exit *x);
void dwc_copy_exit(struct dwc_exit *to, const struct dwc_exit *from);
int dwc_same_exit(const struct dwc_exit *a, const struct dwc_exit *b);
int dwc_finishes_later(const struct dwc_engine *e, const struct dwc_exit *x);
int dwc_replayable(const struct dwc_exit *x);
int dwc_returnable(const struct dwc_exit *x, const struct dwc_exit *before);
int dwc_is_io(const struct dwc_exit *x);
int dwc_is_msr(const struct dwc_exit *x);

#endif
