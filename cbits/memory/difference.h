/* Whether two copies of a page differ: 0 if they are equal. */
#ifndef DWC_MEMORY_DIFFERENCE_H
#define DWC_MEMORY_DIFFERENCE_H

#include <stdint.h>

typedef uint64_t (*dwc_difference_function)(const uint8_t *a, const uint8_t *b);
extern _Atomic(dwc_difference_function) dwc_difference; /* of all engines of the process: both are right */
uint64_t dwc_difference_wide(const uint8_t *a, const uint8_t *b);
uint64_t dwc_difference_words(const uint8_t *a, const uint8_t *b);
void dwc_difference_choose(const uint8_t *a, const uint8_t *b);

#endif
