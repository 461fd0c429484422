/* Split virtqueues from the device's side (virtio 1.2, 2.7), in verified guest memory. */
#ifndef DWC_MEMORY_VIRTQUEUE_H
#define DWC_MEMORY_VIRTQUEUE_H

#include <stdint.h>

#define DWC_QUEUE_ENTRIES 256  /* at most */
#define DWC_CHAIN_SEGMENTS 1024 /* at most, including those of an indirect table */

struct dwc_engine;

struct dwc_segment {
	uint64_t gpa;
	uint32_t length;
};

/* A request: the part that the device reads, and the part that it may write, each as one stream of bytes. */
struct dwc_chain {
	uint16_t head; /* its first descriptor */
	uint32_t readable, count; /* segments to read come first, then those to write up to `count` */
	uint64_t readable_bytes, writable_bytes;
	struct dwc_segment segment[DWC_CHAIN_SEGMENTS];
};

struct dwc_virtqueue {
	uint64_t descriptors, driver, device; /* guest physical addresses of the three parts */
	uint16_t size;
	uint16_t next_available, next_used; /* modulo 2^16 */
	uint16_t signalled;                 /* the used index at the last interrupt */
	uint8_t event_index;                /* VIRTIO_F_EVENT_IDX */
};

int dwc_queue_pop(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_chain *chain);
int dwc_queue_push(struct dwc_engine *e, struct dwc_virtqueue *q, uint16_t head, uint32_t written);
int dwc_queue_stage(struct dwc_engine *e, struct dwc_virtqueue *q, uint16_t head, uint32_t written);
int dwc_queue_publish(struct dwc_engine *e, struct dwc_virtqueue *q);
int dwc_queue_wants_interrupt(struct dwc_engine *e, struct dwc_virtqueue *q);
int dwc_chain_read(struct dwc_engine *e, const struct dwc_chain *chain, uint64_t offset, uint8_t *out, uint64_t length);
int dwc_chain_write(struct dwc_engine *e, const struct dwc_chain *chain, uint64_t offset, const uint8_t *data, uint64_t length);

#endif
