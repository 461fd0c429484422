/* The memory of a virtio device over PCI (virtio 1.2, 4.1): where its structures are, and the registers in C. */
#ifndef DWC_PC_VIRTIO_H
#define DWC_PC_VIRTIO_H

#include <stdint.h>

struct dwc_access;
struct dwc_pci_function;

/* offsets in the only BAR; a page each */
#define DWC_VIRTIO_COMMON 0x0000
#define DWC_VIRTIO_ISR 0x1000
#define DWC_VIRTIO_DEVICE 0x2000
#define DWC_VIRTIO_NOTIFY 0x3000
#define DWC_VIRTIO_TABLE 0x4000 /* of MSI-X */
#define DWC_VIRTIO_PENDING 0x5000
#define DWC_VIRTIO_BYTES 0x8000
#define DWC_VIRTIO_PART 0x1000
#define DWC_VIRTIO_COMMON_BYTES 56
#define DWC_VIRTIO_NOTIFY_BYTES 4 /* a queue */

#define DWC_VIRTIO_DRIVER_OK 4 /* of the status */
#define DWC_VIRTIO_NEEDS_RESET 64

int dwc_virtio_driver_ok(const struct dwc_pci_function *f);
int dwc_virtio_sends_messages(const struct dwc_pci_function *f, unsigned at, unsigned size);
int64_t dwc_virtio_window(const struct dwc_pci_function *f, unsigned at, unsigned size);
int dwc_virtio_serve(struct dwc_pci_function *f, unsigned offset, const struct dwc_access *a);

#endif
