/* Frames that the guest sends and receives, many in one call. If a page had to be repaired, or there are not enough buffers, the queue is
 * as it was before the frame at hand, and the call can be made again. */
#include "memory/frames.h"

#include <endian.h>
#include <string.h>

#include "status.h"

#define NUM_BUFFERS 10 /* of struct virtio_net_hdr; all other fields are 0 for the guest, which gets frames as they are on a wire */

static void put_length(uint8_t *at, uint64_t length)
{
	uint32_t big_endian = htobe32((uint32_t)length);

	memcpy(at, &big_endian, DWC_FRAME_PREFIX);
}

static uint64_t get_length(const uint8_t *at)
{
	uint32_t big_endian;

	memcpy(&big_endian, at, DWC_FRAME_PREFIX);
	return be32toh(big_endian);
}

static void count(struct dwc_frames *frames, int passed, uint64_t length)
{
	frames->count += (uint64_t)passed;
	frames->bytes += passed ? length : 0;
	frames->dropped += (uint64_t)!passed;
}

static int take_one(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_frames *to)
{
	uint64_t length, kept = to->with_header ? DWC_NET_HEADER : 0;
	uint8_t *at = to->data + to->length;
	int status = dwc_queue_pop(e, q, &to->first), fits;

	if (status != DWC_QUEUE_REQUEST)
		return status;
	if (to->first.readable_bytes < DWC_NET_HEADER)
		return DWC_QUEUE_INVALID;
	length = to->first.readable_bytes - DWC_NET_HEADER;
	fits = length >= DWC_FRAME_LEAST && length <= DWC_FRAME_MOST;
	if (fits && (status = dwc_chain_read(e, &to->first, DWC_NET_HEADER - kept, at + DWC_FRAME_PREFIX, kept + length)) != 0)
		return status;
	if ((status = dwc_queue_push(e, q, to->first.head, 0)))
		return status;
	if (fits) {
		put_length(at, kept + length);
		to->length += DWC_FRAME_PREFIX + kept + length;
	}
	count(to, fits, length);
	return DWC_QUEUE_REQUEST;
}

/* Take frames from the guest. Returns DWC_QUEUE_REQUEST if there is no room for one more, or else as dwc_queue_pop(). */
int dwc_frames_take(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_frames *to)
{
	while (to->length + DWC_FRAME_PREFIX + DWC_NET_HEADER + DWC_FRAME_MOST <= to->room) {
		struct dwc_virtqueue before = *q;
		int status = take_one(e, q, to);

		if (status != DWC_QUEUE_REQUEST) {
			*q = before;
			return status;
		}
	}
	return DWC_QUEUE_REQUEST;
}

/* Fill a buffer from `done` bytes of header and frame on. Returns how many bytes are in it then, or 0 if the guest's buffer cannot be. */
static uint64_t fill(struct dwc_engine *e, struct dwc_chain *buffer, const uint8_t *frame, uint64_t total, uint64_t done)
{
	uint64_t skip = done ? 0 : DWC_NET_HEADER, piece = total - done < buffer->writable_bytes ? total - done : buffer->writable_bytes;

	if (!piece || piece < skip)
		return 0;
	return dwc_chain_write(e, buffer, skip, frame + done + skip - DWC_NET_HEADER, piece - skip) ? 0 : piece;
}

/* What became of a frame for the guest, if it is none of enum dwc_queue_result. */
enum { GIVEN, NO_BUFFERS = -1, TOO_LONG = -2 };

static int give_one(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_frames *from, const uint8_t *frame, uint64_t length, int mergeable)
{
	uint8_t header[DWC_NET_HEADER] = { 0 };
	uint64_t total = DWC_NET_HEADER + length, piece;
	uint16_t buffers = 0;
	int status;

	for (uint64_t done = 0; done < total; done += piece, buffers++) {
		struct dwc_chain *buffer = buffers ? &from->further : &from->first;

		if ((status = dwc_queue_pop(e, q, buffer)) != DWC_QUEUE_REQUEST)
			return status != DWC_QUEUE_EMPTY ? status : buffers < q->size ? NO_BUFFERS : TOO_LONG;
		if (!mergeable && buffer->writable_bytes < total)
			return TOO_LONG;
		if (!(piece = fill(e, buffer, frame, total, done)))
			return DWC_QUEUE_INVALID;
		if ((status = dwc_queue_stage(e, q, buffer->head, (uint32_t)piece)))
			return status;
	}
	memcpy(header + NUM_BUFFERS, &buffers, sizeof buffers);
	if ((status = dwc_chain_write(e, &from->first, 0, header, sizeof header)))
		return status;
	return dwc_queue_publish(e, q);
}

/* Give the guest frames from `done` on. `mergeable`: a frame may be in several buffers. Returns DWC_QUEUE_REQUEST if no whole frame is
 * left, DWC_QUEUE_EMPTY if the guest has no buffers for the next one, or as dwc_queue_pop(). */
int dwc_frames_give(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_frames *from, int mergeable)
{
	for (uint64_t left; (left = from->length - from->done) >= DWC_FRAME_PREFIX;) {
		const uint8_t *at = from->data + from->done;
		uint64_t length = get_length(at);
		struct dwc_virtqueue before = *q;
		int status;

		from->broken = length < DWC_FRAME_LEAST || length > DWC_FRAME_MOST;
		if (from->broken || left < DWC_FRAME_PREFIX + length)
			break;
		status = give_one(e, q, from, at + DWC_FRAME_PREFIX, length, mergeable);
		if (status != GIVEN)
			*q = before;
		if (status == NO_BUFFERS)
			return DWC_QUEUE_EMPTY;
		if (status != GIVEN && status != TOO_LONG)
			return status;
		from->done += DWC_FRAME_PREFIX + length;
		count(from, status == GIVEN, length);
	}
	return DWC_QUEUE_REQUEST;
}
