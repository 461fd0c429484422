/* Sums of data of any length. */
#include "sum.h"

#include <string.h>

/* Continue a sum. */
uint64_t dwc_sum(uint64_t sum, const void *data, size_t length)
{
	const uint8_t *p = data;
	uint64_t word;

	for (; length >= sizeof word; p += sizeof word, length -= sizeof word) {
		memcpy(&word, p, sizeof word);
		sum = dwc_mix(sum, word);
	}
	word = 0;
	memcpy(&word, p, length);
	return dwc_mix(sum, word);
}
