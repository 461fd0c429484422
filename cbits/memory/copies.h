/* The three copies of RAM, and which pages of them are in use. */
#ifndef DWC_MEMORY_COPIES_H
#define DWC_MEMORY_COPIES_H

#include <stdint.h>

#define DWC_NO_PAGE UINT64_MAX

struct dwc_engine;

/* Bitmaps by page number. */
struct dwc_in_use {
	uint64_t words, *touched, *saved;
};

int dwc_copies_make(struct dwc_engine *e);
void dwc_copies_free(struct dwc_engine *e);
void dwc_touch(struct dwc_engine *e, uint64_t gpa);
uint64_t dwc_next_touched(const struct dwc_engine *e, uint64_t gpa);
const uint8_t *dwc_saved_page(const struct dwc_engine *e, uint64_t gpa);
uint8_t *dwc_page_to_save(struct dwc_engine *e, uint64_t gpa);
void dwc_upset_ram(struct dwc_engine *e, int copy, uint64_t gpa, uint8_t value);

#endif
