/* Whether two copies of a page differ. A comparison spends most of its time here. */
#include "memory/difference.h"

#include "host.h"

#define WIDE __attribute__((target_clones("avx2", "default")))
#define TRIALS 5
#define PAGES_TIMED 16

/* Most pages are equal, so there is no early exit: that lets the compiler use wide loads. */
WIDE uint64_t dwc_difference_wide(const uint8_t *pa, const uint8_t *pb)
{
	const uint64_t *a = (const uint64_t *)pa, *b = (const uint64_t *)pb;
	uint64_t ab = 0;

	for (unsigned i = 0; i < DWC_PAGE / sizeof *a; i++)
		ab |= a[i] ^ b[i];
	return ab;
}

/* The same in general registers, with which QEMU TCG is five times faster. */
uint64_t dwc_difference_words(const uint8_t *pa, const uint8_t *pb)
{
	const uint64_t *a = (const uint64_t *)pa, *b = (const uint64_t *)pb;

	for (unsigned i = 0; i < DWC_PAGE / sizeof *a; i += 4) {
		uint64_t ab = (a[i] ^ b[i]) | (a[i + 1] ^ b[i + 1]) | (a[i + 2] ^ b[i + 2]) | (a[i + 3] ^ b[i + 3]);

		if (ab)
			return ab;
	}
	return 0;
}

_Atomic(dwc_difference_function) dwc_difference = dwc_difference_wide;

static uint64_t time_of(dwc_difference_function candidate, const uint8_t *a, const uint8_t *b)
{
	uint64_t least_ns = UINT64_MAX;
	volatile uint64_t found;

	for (int trial = 0; trial < TRIALS; trial++) {
		uint64_t from = dwc_now_ns(), took;

		for (int i = 0; i < PAGES_TIMED; i++)
			found = candidate(a, b);
		(void)found;
		took = dwc_now_ns() - from;
		if (took < least_ns)
			least_ns = took;
	}
	return least_ns;
}

/* Choose by measurement, on two equal pages. */
void dwc_difference_choose(const uint8_t *a, const uint8_t *b)
{
	if (time_of(dwc_difference_words, a, b) < time_of(dwc_difference_wide, a, b))
		dwc_difference = dwc_difference_words;
}
