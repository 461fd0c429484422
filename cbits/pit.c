/* The PC's 8254 timer (Intel 231164-005) and port 0x61. A count is not stored but computed from the
 * guest clock, in whole ticks, so that nothing drifts. */
#include "devices.h"

#include <string.h>

#define HZ 1193182u
#define NS_PER_S 1000000000u

static uint64_t ticks_of(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * HZ / NS_PER_S);
}

/* The first nanosecond at which so many ticks have passed. */
static uint64_t ns_of(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * NS_PER_S + HZ - 1) / HZ);
}

static uint64_t elapsed(const struct dwc_pit_channel *c, uint64_t now_ns)
{
	uint64_t start = ticks_of(c->start_ns), now = ticks_of(now_ns);

	return now > start ? now - start : 0;
}

static int periodic(const struct dwc_pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static uint16_t count_now(const struct dwc_pit_channel *c, uint64_t now_ns)
{
	uint64_t gone;

	if (!c->counting)
		return (uint16_t)c->reload;
	gone = elapsed(c, now_ns);
	if (c->mode == 3) /* counts down by two, twice a period */
		return (uint16_t)(c->reload - 2 * (gone % c->reload) % c->reload);
	if (periodic(c))
		return (uint16_t)(c->reload - gone % c->reload);
	return (uint16_t)(c->reload - gone); /* goes on through zero */
}

static int output(const struct dwc_pit_channel *c, uint64_t now_ns)
{
	uint64_t gone;

	if (!c->counting)
		return c->mode != 0;
	gone = elapsed(c, now_ns);
	switch (c->mode) {
	case 0:
	case 1:
		return gone >= c->reload;
	case 2: /* low for the last tick of a period */
		return gone % c->reload != c->reload - 1;
	case 3:
		return gone % c->reload < (c->reload + 1) / 2;
	default: /* 4, 5: one low tick when the count ends */
		return gone != c->reload;
	}
}

/* Rising edges of the output since the count was loaded. */
static uint64_t rises(const struct dwc_pit_channel *c, uint64_t now_ns)
{
	uint64_t gone;

	if (!c->counting)
		return 0;
	gone = elapsed(c, now_ns);
	if (periodic(c))
		return gone / c->reload;
	return c->mode >= 4 ? gone > c->reload : gone >= c->reload;
}

void dwc_pit_init(struct dwc_pit *pit)
{
	memset(pit, 0, sizeof *pit);
	for (int i = 0; i < 3; i++) {
		pit->channel[i].reload = 65536;
		pit->channel[i].mode = 3;
		pit->channel[i].access = 3;
		pit->channel[i].gate = i != 2;
		pit->channel[i].counting = i != 2; /* as firmware leaves it: 18.2 Hz, masked in the 8259 */
	}
}

uint64_t dwc_pit_deadline(const struct dwc_pit *pit, uint64_t now_ns)
{
	const struct dwc_pit_channel *c = &pit->channel[0];
	uint64_t start = ticks_of(c->start_ns), seen = rises(c, now_ns);

	if (!c->counting || (!periodic(c) && seen))
		return UINT64_MAX;
	if (periodic(c))
		return ns_of(start + (seen + 1) * c->reload);
	return ns_of(start + c->reload + (c->mode >= 4));
}

int dwc_pit_output(const struct dwc_pit *pit, uint64_t now_ns)
{
	return output(&pit->channel[0], now_ns);
}

unsigned dwc_pit_edges(struct dwc_pit *pit, uint64_t now_ns)
{
	uint64_t all = rises(&pit->channel[0], now_ns), fresh = all - pit->edges_taken;

	pit->edges_taken = all;
	return fresh > UINT32_MAX ? UINT32_MAX : (unsigned)fresh;
}

static void load(struct dwc_pit *pit, unsigned index, uint16_t value, uint64_t now_ns)
{
	struct dwc_pit_channel *c = &pit->channel[index];

	c->reload = value ? value : 65536;
	if (c->mode == 2 && c->reload == 1)
		c->reload = 2; /* the data sheet forbids a count of 1 here */
	c->start_ns = now_ns;
	c->null_count = 0;
	c->counting = c->gate && c->mode != 1 && c->mode != 5;
	if (index == 0)
		pit->edges_taken = 0;
}

static void latch_count(struct dwc_pit_channel *c, uint64_t now_ns)
{
	if (c->latched)
		return;
	c->latch = count_now(c, now_ns);
	c->latched = c->access;
}

static void read_back(struct dwc_pit *pit, uint8_t value, uint64_t now_ns)
{
	for (int i = 0; i < 3; i++) {
		struct dwc_pit_channel *c = &pit->channel[i];

		if (!(value & (2u << i)))
			continue;
		if (!(value & 0x20))
			latch_count(c, now_ns);
		if (!(value & 0x10) && !c->status_latched) {
			c->status = (uint8_t)(output(c, now_ns) << 7 | c->null_count << 6 | c->access << 4 | c->mode << 1);
			c->status_latched = 1;
		}
	}
}

static void control(struct dwc_pit *pit, uint8_t value, uint64_t now_ns)
{
	unsigned index = value >> 6, access = (value >> 4) & 3;
	struct dwc_pit_channel *c;

	if (index == 3) {
		read_back(pit, value, now_ns);
		return;
	}
	c = &pit->channel[index];
	if (!access) {
		latch_count(c, now_ns);
		return;
	}
	c->access = (uint8_t)access;
	c->mode = (value >> 1) & 7;
	if (c->mode > 5)
		c->mode -= 4; /* bit 2 is ignored for modes 2 and 3 */
	c->counting = c->write_high = c->read_high = c->latched = c->status_latched = 0;
	c->null_count = 1;
	if (index == 0)
		pit->edges_taken = 0;
}

static void write_61(struct dwc_pit *pit, uint8_t value, uint64_t now_ns)
{
	struct dwc_pit_channel *c = &pit->channel[2];
	uint8_t gate = value & 1;

	pit->speaker = value & 3;
	/* modes 1, 2, 3, 5 start anew; 0 and 4 would go on where they stood, which nobody asks for */
	if (gate && !c->gate) {
		c->start_ns = now_ns;
		c->counting = 1;
	}
	if (!gate)
		c->counting = 0;
	c->gate = gate;
}

uint8_t dwc_pit_read(struct dwc_pit *pit, uint16_t port, uint64_t now_ns)
{
	struct dwc_pit_channel *c;
	uint16_t count;

	if (port == 0x61) {
		pit->refresh ^= 0x10;
		return (uint8_t)(pit->speaker | pit->refresh | output(&pit->channel[2], now_ns) << 5);
	}
	if (port == 0x43)
		return 0xff; /* write only */
	c = &pit->channel[port & 3];
	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	count = c->latched ? c->latch : count_now(c, now_ns);
	if (c->latched == 3) {
		c->latched = 2;
		return (uint8_t)count;
	}
	if (c->latched) {
		uint8_t high = c->latched == 2;

		c->latched = 0;
		return (uint8_t)(high ? count >> 8 : count);
	}
	if (c->access == 3) {
		c->read_high ^= 1;
		return (uint8_t)(c->read_high ? count : count >> 8);
	}
	return (uint8_t)(c->access == 2 ? count >> 8 : count);
}

void dwc_pit_write(struct dwc_pit *pit, uint16_t port, uint8_t value, uint64_t now_ns)
{
	struct dwc_pit_channel *c;

	if (port == 0x61) {
		write_61(pit, value, now_ns);
		return;
	}
	if (port == 0x43) {
		control(pit, value, now_ns);
		return;
	}
	c = &pit->channel[port & 3];
	if (c->access == 1) {
		load(pit, port & 3, value, now_ns);
	} else if (c->access == 2) {
		load(pit, port & 3, (uint16_t)(value << 8), now_ns);
	} else if (!c->write_high) {
		c->low_byte = value;
		c->write_high = 1;
		if (c->mode == 0)
			c->counting = 0;
	} else {
		c->write_high = 0;
		load(pit, port & 3, (uint16_t)(value << 8 | c->low_byte), now_ns);
	}
}
