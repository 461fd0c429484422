/* Frames of a network device, between its queues and a stream of bytes. */
#ifndef DWC_MEMORY_FRAMES_H
#define DWC_MEMORY_FRAMES_H

#include <stdint.h>

#include "memory/virtqueue.h"

#define DWC_NET_HEADER 12     /* struct virtio_net_hdr with num_buffers (virtio 1.2, 5.1.6) */
#define DWC_FRAME_PREFIX 4    /* its length in the stream, big-endian, as QEMU's and passt's sockets have it */
#define DWC_FRAME_LEAST 14    /* bytes: a header of Ethernet */
#define DWC_FRAME_MOST 65553u /* 65,535 bytes of payload, header, VLAN tag */

/* Frames in a row, each behind its length. */
struct dwc_frames {
	uint8_t *data;
	uint64_t room, length; /* bytes */
	uint64_t done;         /* of them, on the way to the guest */
	uint64_t count, bytes;   /* frames that have passed, and what they are together */
	uint64_t dropped;        /* frames that no side can take */
	int with_header;       /* the guest's struct virtio_net_hdr stays in front of each frame that it sends */
	int broken;            /* a length that cannot be: nothing behind it can be read */
	struct dwc_chain first, further; /* buffers of the frame that is being moved */
};

int dwc_frames_take(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_frames *to);
int dwc_frames_give(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_frames *from, int mergeable);

#endif
