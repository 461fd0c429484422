/* PCI's configuration address, and the answers for functions that are not there: a loader that looks at all of configuration space
 * asks more than a hundred thousand times. Those that are there answer in Python (dwcvmm/pc/devices/pci/bus.py). */
#include "pc/pci.h"

#include <errno.h>
#include <string.h>

#define ENABLE 0x80000000u
#define DATA 4 /* offset of the data register from port 0xCF8 */

void dwc_pci_add(struct dwc_pci *p, unsigned device, unsigned function)
{
	p->present[device] |= (uint8_t)(1u << function);
}

/* Bus, device and function as both ways encode them: 8, 5 and 3 bits. There is bus 0 only. */
int dwc_pci_present(const struct dwc_pci *p, uint32_t address)
{
	return address < sizeof p->present * 8 && p->present[address >> 3] >> (address & 7) & 1;
}

/* Whether an access to the data register reaches a function. */
static int reaches(const struct dwc_pci *p)
{
	return p->address & ENABLE && dwc_pci_present(p, p->address >> 8 & 0xffff);
}

/* A read at an offset from port 0xCF8; returns 0 if it is for Python. Nobody's configuration reads as ones. */
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

/* As dwc_pci_read(). The address is written as a whole, and has two bits that are always 0. */
int dwc_pci_write(struct dwc_pci *p, unsigned offset, unsigned size, const uint8_t *data)
{
	if (!offset && size == sizeof p->address) {
		memcpy(&p->address, data, size);
		p->address &= ~3u;
		return 1;
	}
	return offset >= DATA && !reaches(p);
}
