/* Guest memory for devices: what they read has been compared, and what they write goes to all copies. */
#include "memory/dma.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>

#include "assertion.h"
#include "engine.h"
#include "host.h"
#include "memory/copies.h"
#include "memory/guard.h"
#include "memory/scrub.h"
#include "phase.h"
#include "ram.h"
#include "record/record.h"
#include "status.h"
#include "sum.h"
#include "vcpu/exit.h"

/* layout.py */
#define PCI_MEMORY 0xc0000000ull
#define PCI_MEMORY_END 0xfec00000ull
#define FW_CFG_DMA 0x518

/* A write to a PCI device's memory can make it use guest memory: its element becomes a checkpoint. */
int dwc_is_doorbell(const struct dwc_exit *x)
{
	return x->reason == KVM_EXIT_MMIO && x->is_write && x->gpa >= PCI_MEMORY && x->gpa < PCI_MEMORY_END;
}

/* A write to fw_cfg's DMA port. The guest then polls memory without an exit, so the transfer must be done now, although KVM may
 * still have to step over the OUT. That is harmless: it uses no memory, and a rollback makes the OUT exit again, like any other. */
static int is_dma_request(const struct dwc_exit *x)
{
	return x->reason == KVM_EXIT_IO && x->is_write && x->port == FW_CFG_DMA;
}

/* Whether the replicas are between instructions, so that KVM has no rest of an instruction left that could use guest memory. With
 * a checkpoint there a device may use it: all of it has been compared, and no rollback replays an earlier element. */
int dwc_memory_at_rest(const struct dwc_engine *e)
{
	if (e->phase != DWC_PHASE_BETWEEN && e->phase != DWC_PHASE_INPUTS_CHOSEN)
		return 0;
	return (!e->has_pending_io || is_dma_request(&e->exit)) && dwc_returnable(&e->exit, &e->exit);
}

static int read_page(struct dwc_engine *e, uint64_t gpa, uint8_t *out, uint64_t length)
{
	memcpy(out, e->replicas[0].ram + gpa, length);
	if (!e->protects)
		return 0;
	/* compare what was copied for the device, not the replica's page: a bit can flip on the way */
	if (!memcmp(out, e->replicas[1].ram + gpa, length) && !memcmp(out, dwc_saved_page(e, gpa) + gpa % DWC_PAGE, length))
		return 0;
	return dwc_page_repair(e, gpa & ~(uint64_t)(DWC_PAGE - 1)) ? DWC_MEMORY_REPAIRED : DWC_MEMORY_LOST;
}

/* Read for a device, between elements. Returns an enum dwc_memory_result or -errno. */
int dwc_memory_read(struct dwc_engine *e, uint64_t gpa, uint8_t *out, uint64_t length)
{
	int status = dwc_is_ram(e->config.ram_bytes, gpa, length) ? 0 : -EFAULT;

	for (uint64_t done = 0, piece; !status && done < length; done += piece) {
		piece = DWC_PAGE - (gpa + done) % DWC_PAGE;
		if (piece > length - done)
			piece = length - done;
		status = read_page(e, gpa + done, out + done, piece);
	}
	return status;
}

/* The checkpoint's copy of a page gets `data`. A page that is not what was saved is not blessed by it, unless nothing of it
 * is left. */
static void write_checkpoint_page(struct dwc_engine *e, uint64_t gpa, const uint8_t *data, uint64_t length)
{
	int right = length == DWC_PAGE || dwc_page_sum(dwc_saved_page(e, gpa)) == e->checkpoint.sums[gpa / DWC_PAGE];
	uint8_t *page = dwc_page_to_save(e, gpa);

	memcpy(page + gpa % DWC_PAGE, data, length);
	if (right)
		dwc_set_page_sum(e, gpa, dwc_page_sum(page));
	dwc_touch(e, gpa);
}

/* A write by the VMM, between elements, or while the replicas wait for a rollback. KVM does not log it, so it goes to all three copies at
 * once. */
int dwc_memory_write(struct dwc_engine *e, uint64_t gpa, const uint8_t *data, uint64_t length)
{
	DWC_ASSERT(e, e->phase == DWC_PHASE_BETWEEN || e->phase == DWC_PHASE_INPUTS_CHOSEN || e->phase == DWC_PHASE_DISCARDED);
	if (!dwc_is_ram(e->config.ram_bytes, gpa, length))
		return -EFAULT;
	memcpy(e->replicas[0].ram + gpa, data, length);
	dwc_record_memory(e, gpa, data, length);
	if (e->protects) {
		memcpy(e->replicas[1].ram + gpa, data, length);
		for (uint64_t done = 0, piece; done < length; done += piece) {
			piece = DWC_PAGE - (gpa + done) % DWC_PAGE;
			if (piece > length - done)
				piece = length - done;
			write_checkpoint_page(e, gpa + done, data + done, piece);
		}
	}
	return 0;
}
