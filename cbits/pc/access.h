/* One access of the guest to a device, at a port or in memory. */
#ifndef DWC_PC_ACCESS_H
#define DWC_PC_ACCESS_H

#include <stdint.h>

/* A part of a PCI device's memory. */
struct dwc_place {
	unsigned slot, offset;
};

struct dwc_access {
	uint64_t address;       /* a port, or a guest physical address */
	unsigned at;            /* counted from the first address of the device's region */
	unsigned size;          /* bytes, 1 to 8 */
	const uint8_t *written; /* NULL: a read */
	uint8_t *read;
	uint64_t now_ns;        /* the guest clock */
	int committed;          /* both runs of the element agree on it: what leaves the machine may be done */
	struct dwc_place *left; /* of a committed access: set to the part of a device's memory that it is for, if that is in Python */
};

void dwc_answer(const struct dwc_access *a, unsigned at, uint64_t value);
uint64_t dwc_merged(const struct dwc_access *a, unsigned at, uint64_t value);

#endif
