/* Sums of data that must not change, or that must be the same in both runs. */
#ifndef DWC_SUM_H
#define DWC_SUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t dwc_sum(uint64_t sum, const void *data, size_t length);
uint64_t dwc_page_sum(const uint8_t *page);

#endif
