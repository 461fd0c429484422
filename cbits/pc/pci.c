/* PCI's configuration address register, and the answers for absent functions: a boot loader that scans the configuration space
 * makes more than a hundred thousand accesses. Functions that exist are in Python (dwcvmm/pc/devices/pci/bus.py). */
#include "pc/pci.h"

#include <errno.h>
#include <string.h>

#define ENABLE 0x80000000u
#define DATA 4 /* offset of the data register from port 0xCF8 */

void dwc_pci_add(struct dwc_pci *p, unsigned device, unsigned function)
{
	p->present[device] |= (uint8_t)(1u << function);
}

/* Whether a function exists. Bus, device and function have 8, 5 and 3 bits, as both mechanisms encode them. Only bus 0 exists. */
int dwc_pci_present(const struct dwc_pci *p, uint32_t address)
{
	return address < sizeof p->present * 8 && p->present[address >> 3] >> (address & 7) & 1;
}

/* Whether an access to the data register reaches an existing function. */
static int reaches(const struct dwc_pci *p)
{
	return p->address & ENABLE && dwc_pci_present(p, p->address >> 8 & 0xffff);
}

/* Read at an offset from port 0xCF8; returns 0 if Python has to do it. Absent functions read as all ones. */
int dwc_pci_read(const struct dwc_pci *p, unsigned offset, unsigned size, uint8_t *data)
{
	if (!offset && size == sizeof p->address) {
		memcpy(data, &p->address, size);
		return 1;
	}
	if (offset < DATA || reaches(p))
		return 0;
	memset(data, 0xff, size);
	return 1;
}

/* Write; returns as dwc_pci_read() does. The address is written as a whole, and its two lowest bits are always 0. */
int dwc_pci_write(struct dwc_pci *p, unsigned offset, unsigned size, const uint8_t *data)
{
	if (!offset && size == sizeof p->address) {
		memcpy(&p->address, data, size);
		p->address &= ~3u;
		return 1;
	}
	return offset >= DATA && !reaches(p);
}
