/* Sums of data that must not change, or that must be the same in both runs. */
#ifndef DWC_SUM_H
#define DWC_SUM_H

#include <stddef.h>
#include <stdint.h>

/* For a given word a step maps sums one to one, and for a given sum it maps words one to one: so one changed word always shows. */
static inline uint64_t dwc_mix(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * 0x9e3779b97f4a7c15ull;
	return sum ^ sum >> 29;
}

uint64_t dwc_sum(uint64_t sum, const void *data, size_t length);

#endif
