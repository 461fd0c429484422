/* Guest memory for devices. */
#ifndef DWC_MEMORY_DMA_H
#define DWC_MEMORY_DMA_H

#include <stdint.h>

struct dwc_engine;
struct dwc_exit;

int dwc_is_doorbell(const struct dwc_exit *x);
int dwc_memory_at_rest(const struct dwc_engine *e);
int dwc_memory_read(struct dwc_engine *e, uint64_t gpa, uint8_t *out, uint64_t length);
int dwc_memory_write(struct dwc_engine *e, uint64_t gpa, const uint8_t *data, uint64_t length);

#endif
