/* RAM of a saved machine: all copies map one file. */
#include "memory/mapped.h"

#include <errno.h>
#include <sys/mman.h>

#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "memory/guard.h"
#include "ram.h"
#include "sum.h"

static int map(uint8_t *ram, int fd, uint64_t gpa, uint64_t length)
{
	void *at = mmap(ram + gpa, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)gpa);

	return at == MAP_FAILED ? -errno : 0;
}

/* Before the first element, of whole pages: all copies get the content that a file has at that guest physical address. They share its
 * pages until they write to them. Returns -errno or 0. */
int dwc_memory_map(struct dwc_engine *e, int fd, uint64_t gpa, uint64_t length)
{
	int err;

	if (!dwc_is_ram(e->config.ram_bytes, gpa, length))
		return -EFAULT;
	if ((err = map(e->replicas[0].ram, fd, gpa, length)) || (err = map(e->checkpoint.ram, fd, gpa, length)) ||
	    (e->replicas[1].ram != e->replicas[0].ram && (err = map(e->replicas[1].ram, fd, gpa, length))))
		return err;
	for (uint64_t at = gpa; at < gpa + length; at += DWC_PAGE) {
		dwc_set_page_sum(e, at, dwc_page_sum(dwc_page_to_save(e, at)));
		dwc_touch(e, at);
	}
	return 0;
}
