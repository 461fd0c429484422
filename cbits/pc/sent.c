/* What the serial ports have sent: it leaves the machine once the element is committed. */
#include "pc/sent.h"

/* KVM passes on at most a page of a string output at once, which makes up to 18 runs. */
#define HEADROOM 4160

/* A byte was sent. It is lost if there is no room, which does not happen if what is full is drained. A fault in a replica's devices
 * may have changed any of these numbers, so they are checked. */
void dwc_sent_add(struct dwc_sent *s, unsigned port, uint8_t value)
{
	uint8_t *head;

	if (s->count > DWC_SENT_BYTES - DWC_SENT_HEAD - 1 || s->last > s->count)
		return;
	head = &s->runs[s->last];
	if (!s->count || head[0] != port || head[1] == UINT8_MAX) {
		s->last = s->count;
		head = &s->runs[s->last];
		head[0] = (uint8_t)port;
		head[1] = 0;
		s->count += DWC_SENT_HEAD;
	}
	head[1]++;
	s->runs[s->count++] = value;
	s->line_ended |= value == '\n';
}

/* The host has taken all of it. */
void dwc_sent_clear(struct dwc_sent *s)
{
	s->line_ended = 0;
	s->last = s->count = 0;
}

/* Whether there is little room. The headroom takes a string output, so nothing is lost if it is drained then. */
int dwc_sent_is_full(const struct dwc_sent *s)
{
	return s->count > DWC_SENT_BYTES - HEADROOM;
}

/* Whether to drain it: a line is complete, or there is little room. */
int dwc_sent_wants_drain(const struct dwc_sent *s)
{
	return s->line_ended || dwc_sent_is_full(s);
}
