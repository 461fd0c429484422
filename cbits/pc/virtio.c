/* A virtio device's memory. Doorbells and the ISR are here, since a guest accesses them at each request; the common configuration, the
 * device's own, and the MSI-X table are in Python (dwcvmm/pc/devices/virtio/pci.py). */
#include "pc/virtio.h"

#include "pc/access.h"
#include "pc/pcifunction.h"

int dwc_virtio_driver_ok(const struct dwc_pci_function *f)
{
	return f->status & DWC_VIRTIO_DRIVER_OK && !(f->status & DWC_VIRTIO_NEEDS_RESET);
}

/* Whether a write to these registers reaches MSI-X's message control: messages that have been held back may go out then. */
int dwc_virtio_sends_messages(const struct dwc_pci_function *f, unsigned at, unsigned size)
{
	return f->kind == DWC_PCI_VIRTIO && at < DWC_PCI_MSIX_CONTROL + 2 && at + size > DWC_PCI_MSIX_CONTROL;
}

/* The part of the BAR that an access to pci_cfg_data means (4.1.4.9); -1 for another register, or an invalid access. */
int64_t dwc_virtio_window(const struct dwc_pci_function *f, unsigned at, unsigned size)
{
	uint64_t offset = dwc_pci_kept(f, DWC_PCI_WINDOW_OFFSET), length = dwc_pci_kept(f, DWC_PCI_WINDOW_LENGTH);

	if (f->kind != DWC_PCI_VIRTIO || at != DWC_PCI_WINDOW_DATA || dwc_pci_kept(f, DWC_PCI_WINDOW_BAR))
		return -1;
	if (length != size || (size != 1 && size != 2 && size != 4) || offset + length > DWC_VIRTIO_BYTES)
		return -1;
	return (int64_t)offset;
}

/* Reading the interrupt status acknowledges it (4.1.4.5). */
static void read_isr(struct dwc_pci_function *f, unsigned at, const struct dwc_access *a)
{
	dwc_answer(a, 0, at ? 0 : f->isr);
	if (!at)
		f->isr = 0;
}

/* A doorbell makes the device use guest memory, which has to be verified before. */
static int notify(struct dwc_pci_function *f, unsigned queue, const struct dwc_access *a)
{
	if (queue >= f->queues || !dwc_virtio_driver_ok(f))
		return 1;
	if (!a->committed)
		return 0;
	f->waiting |= (uint8_t)(1u << queue);
	return 1;
}

/* Serve an access to the BAR; returns 0 if it is for Python. */
int dwc_virtio_serve(struct dwc_pci_function *f, unsigned offset, const struct dwc_access *a)
{
	unsigned part = offset & ~(DWC_VIRTIO_PART - 1u), at = offset - part;

	if (part == DWC_VIRTIO_COMMON || part == DWC_VIRTIO_TABLE)
		return 0;
	if (a->written)
		return part == DWC_VIRTIO_NOTIFY ? notify(f, at / DWC_VIRTIO_NOTIFY_BYTES, a) : 1;
	if (part == DWC_VIRTIO_DEVICE || part == DWC_VIRTIO_PENDING)
		return 0;
	if (part == DWC_VIRTIO_ISR)
		read_isr(f, at, a);
	else
		dwc_answer(a, 0, 0);
	return 1;
}
