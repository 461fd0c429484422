/* RAM of a saved machine. */
#ifndef DWC_MEMORY_MAPPED_H
#define DWC_MEMORY_MAPPED_H

#include <stdint.h>

struct dwc_engine;

int dwc_memory_map(struct dwc_engine *e, int fd, uint64_t gpa, uint64_t length);

#endif
