/* A split virtqueue. The guest does not run while a device accesses its memory, so the order of reads does not matter. What the guest
 * has written there is not trusted: every index, address and length is checked. If a page had to be repaired nothing has changed but
 * in guest memory, and the call is to be made again. */
#include "memory/virtqueue.h"

#include <string.h>

#include "memory/dma.h"
#include "status.h"

#define NEXT 1 /* flags of a descriptor */
#define WRITE 2
#define INDIRECT 4
#define NO_INTERRUPT 1 /* of the driver's ring */
#define HOLE 0xa0000ull /* VGA */
#define HOLE_END 0xc0000ull

struct descriptor {
	uint64_t gpa;
	uint32_t length;
	uint16_t flags, next;
};

static int is_outside(uint64_t base, uint64_t offset, uint64_t length)
{
	uint64_t gpa = base + offset;

	return gpa < base || gpa + length < gpa || (length && gpa < HOLE_END && gpa + length > HOLE);
}

/* Read `length` bytes at `offset` from an address that the guest has given. Returns 0, DWC_QUEUE_INVALID, or as dwc_memory_read(). */
static int get(struct dwc_engine *e, uint64_t base, uint64_t offset, void *out, uint64_t length)
{
	int status = is_outside(base, offset, length) ? DWC_QUEUE_INVALID : dwc_memory_read(e, base + offset, out, length);

	return status < 0 ? DWC_QUEUE_INVALID : status;
}

static int put(struct dwc_engine *e, uint64_t base, uint64_t offset, const void *data, uint64_t length)
{
	return is_outside(base, offset, length) || dwc_memory_write(e, base + offset, data, length) ? DWC_QUEUE_INVALID : 0;
}

static int append(struct dwc_chain *chain, const struct descriptor *d)
{
	int writable = d->flags & WRITE;

	if (chain->count == DWC_CHAIN_SEGMENTS || (!writable && chain->count > chain->readable))
		return DWC_QUEUE_INVALID; /* too many, or a part to read behind one to write */
	chain->segment[chain->count++] = (struct dwc_segment){ d->gpa, d->length };
	if (writable) {
		chain->writable_bytes += d->length;
	} else {
		chain->readable++;
		chain->readable_bytes += d->length;
	}
	return 0;
}

/* Follow a chain in a table of descriptors, up to an indirect one, which is left in `last`. */
static int follow(struct dwc_engine *e, uint64_t table, uint64_t entries, uint64_t at, struct dwc_chain *chain, struct descriptor *last)
{
	int status;

	for (uint64_t i = 0; i < entries && i < DWC_CHAIN_SEGMENTS; i++, at = last->next) {
		if (at >= entries)
			return DWC_QUEUE_INVALID;
		if ((status = get(e, table, at * sizeof *last, last, sizeof *last)))
			return status;
		if (last->flags & INDIRECT)
			return last->flags & NEXT || !last->length || last->length % sizeof *last ? DWC_QUEUE_INVALID : 0;
		if ((status = append(chain, last)))
			return status;
		if (!(last->flags & NEXT))
			return 0;
	}
	return DWC_QUEUE_INVALID; /* without end */
}

static int take(struct dwc_engine *e, const struct dwc_virtqueue *q, uint16_t head, struct dwc_chain *chain)
{
	struct descriptor last, inner;
	int status;

	chain->head = head;
	chain->readable = chain->count = 0;
	chain->readable_bytes = chain->writable_bytes = 0;
	if ((status = follow(e, q->descriptors, q->size, head, chain, &last)) || !(last.flags & INDIRECT))
		return status;
	if ((status = follow(e, last.gpa, last.length / sizeof last, 0, chain, &inner)))
		return status;
	return inner.flags & INDIRECT ? DWC_QUEUE_INVALID : 0;
}

/* The next request of the guest. Returns an enum dwc_queue_result, or one of dwc_memory_result. */
int dwc_queue_pop(struct dwc_engine *e, struct dwc_virtqueue *q, struct dwc_chain *chain)
{
	uint16_t index, head, waiting;
	int status;

	if ((status = get(e, q->driver, 2, &index, sizeof index)))
		return status;
	waiting = (uint16_t)(index - q->next_available);
	if (waiting > q->size)
		return DWC_QUEUE_INVALID;
	if (!waiting) {
		/* the guest need not notify the device until it adds another request */
		status = q->event_index ? put(e, q->device, 4 + 8 * (uint64_t)q->size, &q->next_available, sizeof index) : 0;
		return status ? status : DWC_QUEUE_EMPTY;
	}
	if ((status = get(e, q->driver, 4 + 2 * (uint64_t)(q->next_available % q->size), &head, sizeof head)))
		return status;
	if ((status = take(e, q, head, chain)))
		return status;
	q->next_available++;
	return DWC_QUEUE_REQUEST;
}

/* The same as dwc_queue_push(), but the guest sees it only with dwc_queue_publish(). */
int dwc_queue_stage(struct dwc_engine *e, struct dwc_virtqueue *q, uint16_t head, uint32_t written)
{
	uint32_t used[2] = { head, written };

	if (put(e, q->device, 4 + 8 * (uint64_t)(q->next_used % q->size), used, sizeof used))
		return DWC_QUEUE_INVALID;
	q->next_used++;
	return 0;
}

int dwc_queue_publish(struct dwc_engine *e, struct dwc_virtqueue *q)
{
	return put(e, q->device, 2, &q->next_used, sizeof q->next_used);
}

/* Return a request, with the number of bytes written from the first writable one on. Returns 0 or DWC_QUEUE_INVALID. */
int dwc_queue_push(struct dwc_engine *e, struct dwc_virtqueue *q, uint16_t head, uint32_t written)
{
	int status = dwc_queue_stage(e, q, head, written);

	return status ? status : dwc_queue_publish(e, q);
}

/* Whether the guest wants an interrupt for what was pushed since the last call (2.7.7.2, 2.7.10): DWC_QUEUE_REQUEST. Returns as
 * dwc_queue_pop(). */
int dwc_queue_wants_interrupt(struct dwc_engine *e, struct dwc_virtqueue *q)
{
	uint16_t before = q->signalled, word;
	uint64_t at = q->event_index ? 4 + 2 * (uint64_t)q->size : 0;
	int status, wants;

	if (before == q->next_used)
		return DWC_QUEUE_EMPTY;
	if ((status = get(e, q->driver, at, &word, sizeof word)))
		return status;
	q->signalled = q->next_used;
	wants = q->event_index ? (uint16_t)(q->next_used - word - 1) < (uint16_t)(q->next_used - before) : !(word & NO_INTERRUPT);
	return wants ? DWC_QUEUE_REQUEST : DWC_QUEUE_EMPTY;
}

/* The piece of a stream at `offset` in these segments: its address, and at most `length` bytes of it. Returns its length; 0: the stream
 * has ended. */
static uint64_t piece(const struct dwc_segment *s, uint32_t count, uint64_t offset, uint64_t length, uint64_t *base, uint64_t *within)
{
	for (; count; s++, count--) {
		if (offset < s->length) {
			*base = s->gpa;
			*within = offset;
			return s->length - offset < length ? s->length - offset : length;
		}
		offset -= s->length;
	}
	return 0;
}

/* Read from the stream that the device reads. Returns 0, DWC_QUEUE_INVALID (also beyond its end), or as dwc_memory_read(). */
int dwc_chain_read(struct dwc_engine *e, const struct dwc_chain *chain, uint64_t offset, uint8_t *out, uint64_t length)
{
	uint64_t base, within, n;
	int status;

	for (; length; offset += n, out += n, length -= n) {
		if (!(n = piece(chain->segment, chain->readable, offset, length, &base, &within)))
			return DWC_QUEUE_INVALID;
		if ((status = get(e, base, within, out, n)))
			return status;
	}
	return 0;
}

/* Write into the stream that the device may write. Returns 0 or DWC_QUEUE_INVALID. */
int dwc_chain_write(struct dwc_engine *e, const struct dwc_chain *chain, uint64_t offset, const uint8_t *data, uint64_t length)
{
	uint64_t base, within, n;

	for (; length; offset += n, data += n, length -= n) {
		n = piece(chain->segment + chain->readable, chain->count - chain->readable, offset, length, &base, &within);
		if (!n || put(e, base, within, data, n))
			return DWC_QUEUE_INVALID;
	}
	return 0;
}
