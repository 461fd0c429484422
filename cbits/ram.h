/* Where guest RAM lies: from 0 to PCI's memory, and what is left from 4 GiB on. The host memory of a copy of RAM is laid out in the
 * same way, so a guest physical address is an offset in it; nobody uses the gap. */
#ifndef DWC_RAM_H
#define DWC_RAM_H

#include <stdint.h>

#define DWC_LOW_RAM_END 0xb0000000ull  /* layout.py: followed by PCI's configuration space and memory, and the APICs */
#define DWC_HIGH_RAM 0x100000000ull
#define DWC_MOST_RAM 0x800000000ull
/* The largest memory slot. KVM_GET_DIRTY_LOG copies the whole bitmap of a slot, which then is searched: as 8 GiB in one slot that costs
 * 15 us. Slots without use are not asked (memory/pages.c), but to make one takes up to a millisecond on a busy host. */
#define DWC_SLOT_BYTES 0x8000000ull
#define DWC_MOST_SLOTS (DWC_MOST_RAM / DWC_SLOT_BYTES)

uint64_t dwc_ram_end(uint64_t ram_bytes);
int dwc_is_ram(uint64_t ram_bytes, uint64_t gpa, uint64_t length);
int dwc_ram_slot(uint64_t ram_bytes, int index, uint64_t *gpa, uint64_t *size);
int dwc_slot_of(uint64_t gpa);

#endif
