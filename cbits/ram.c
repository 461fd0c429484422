/* Where guest RAM lies. */
#include "ram.h"

/* The first address after all of RAM. */
uint64_t dwc_ram_end(uint64_t ram_bytes)
{
	return ram_bytes <= DWC_LOW_RAM_END ? ram_bytes : DWC_HIGH_RAM + ram_bytes - DWC_LOW_RAM_END;
}

/* Whether all of it is RAM. */
int dwc_is_ram(uint64_t ram_bytes, uint64_t gpa, uint64_t length)
{
	uint64_t low = ram_bytes < DWC_LOW_RAM_END ? ram_bytes : DWC_LOW_RAM_END;
	uint64_t end = gpa < DWC_HIGH_RAM ? low : dwc_ram_end(ram_bytes);

	return gpa <= end && length <= end - gpa;
}

/* The slot in which an address of RAM is. */
int dwc_slot_of(uint64_t gpa)
{
	return (int)((gpa < DWC_HIGH_RAM ? gpa : DWC_LOW_RAM_END + gpa - DWC_HIGH_RAM) / DWC_SLOT_BYTES);
}

/* Start and size of a slot. Returns 0 if there are not as many. */
int dwc_ram_slot(uint64_t ram_bytes, int index, uint64_t *gpa, uint64_t *size)
{
	uint64_t at = (uint64_t)index * DWC_SLOT_BYTES, left = ram_bytes > at ? ram_bytes - at : 0;

	*gpa = at < DWC_LOW_RAM_END ? at : DWC_HIGH_RAM + at - DWC_LOW_RAM_END;
	*size = left < DWC_SLOT_BYTES ? left : DWC_SLOT_BYTES;
	return left != 0;
}
