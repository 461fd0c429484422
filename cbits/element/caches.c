/* Strategy in-place, phase cf: flush caches between e1 and e2, so that e2 does not read what e1 left in them. WBINVD would do that
 * at once, but is an instruction of ring 0. */
#include "element/caches.h"

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#include "engine.h"
#include "host.h"

#define LINE 64 /* bytes; CLFLUSH works on any part of a line, and no x86-64 CPU has shorter ones */

static int has_clflushopt(void)
{
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_CLFLUSHOPT);
}

__attribute__((target("clflushopt"))) static void flush_page_unordered(uint8_t *page)
{
	for (unsigned i = 0; i < DWC_PAGE; i += LINE)
		_mm_clflushopt(page + i);
}

static void flush_page(uint8_t *page)
{
	for (unsigned i = 0; i < DWC_PAGE; i += LINE)
		_mm_clflush(page + i);
}

/* Pages that e1 may have written: in guest RAM, as e1 left them, and in the checkpoint. */
static void flush_dirty(struct dwc_engine *e)
{
	void (*flush)(uint8_t *) = has_clflushopt() ? flush_page_unordered : flush_page;

	for (uint32_t i = 0; i < e->dirty.count; i++) {
		uint64_t gpa = (uint64_t)e->dirty.pages[i].page * DWC_PAGE;

		flush(e->replicas[0].ram + gpa);
		flush(e->replicas[1].ram + gpa);
		flush(e->checkpoint.ram + gpa);
	}
	_mm_mfence(); /* CLFLUSHOPT is ordered by fences only */
}

static void evict(struct dwc_engine *e)
{
	const volatile uint8_t *at = e->config.evict, *end = e->config.evict + e->config.evict_bytes;

	for (; at < end; at += LINE)
		(void)*at;
}

/* Write the buffer once: otherwise all its pages would be the kernel's one page of zeros. */
void dwc_caches_prepare(struct dwc_engine *e)
{
	if (e->config.evict)
		memset(e->config.evict, 1, e->config.evict_bytes);
}

/* Flush; the pages are those of the last dwc_pages_list(). */
void dwc_caches_flush(struct dwc_engine *e)
{
	if (e->config.cache_flush == DWC_CACHE_ALL)
		evict(e);
	else
		flush_dirty(e);
}
