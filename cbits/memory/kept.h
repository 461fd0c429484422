/* The checkpoint's memory as it was at one time, while the guest goes on. */
#ifndef DWC_MEMORY_KEPT_H
#define DWC_MEMORY_KEPT_H

#include <stdint.h>

struct dwc_engine;

int dwc_kept_begin(struct dwc_engine *e);
int dwc_kept_read(const struct dwc_engine *e, uint32_t index, uint8_t *to);
void dwc_kept_end(struct dwc_engine *e);

#endif
