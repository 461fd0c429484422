/* The PC's 8254 timer (Intel 231164-005) and port 0x61. A count is not stored but computed from the guest clock, in whole
 * ticks, so that it does not drift. One thing is simpler than in the chip: a count is loaded at once when it is written or when the
 * gate rises, not with the next pulse of the clock. */
#include "pc/pit.h"

#include <errno.h>
#include <string.h>

#define HZ 1193182u
#define NS_PER_S 1000000000u

enum { /* dwc_pit_channel.state */
	EMPTY,   /* no count has been written since the control word */
	ARMED,   /* modes 1, 5: waits for the gate to rise */
	RUNNING, /* since `start` */
	HELD,    /* by the gate, after `held` ticks */
};

static uint64_t ticks_of(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * HZ / NS_PER_S);
}

/* The first nanosecond at which that many ticks have passed. */
static uint64_t ns_of(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * NS_PER_S + HZ - 1) / HZ);
}

static int periodic(const struct dwc_pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static int triggered(const struct dwc_pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

static uint32_t modulus(const struct dwc_pit_channel *c)
{
	return c->bcd ? 10000 : 65536;
}

static uint64_t counted(const struct dwc_pit_channel *c, uint64_t tick)
{
	if (c->state == RUNNING)
		return tick - c->start;
	return c->state == HELD ? c->held : 0;
}

/* The part of a period of mode 3 in which the output is high. */
static uint32_t high_half(uint32_t reload)
{
	return (reload + 1) / 2;
}

static uint16_t count_now(const struct dwc_pit_channel *c, uint64_t tick)
{
	uint64_t gone = counted(c, tick), count;

	if (c->mode == 3) { /* down by two, from an even count, once for each half */
		gone %= c->reload;
		count = (c->reload & ~1u) - 2 * (gone < high_half(c->reload) ? gone : gone - high_half(c->reload));
	} else if (c->mode == 2) {
		count = c->reload - gone % c->reload;
	} else { /* goes on through zero */
		count = c->reload + modulus(c) - gone % modulus(c);
	}
	count %= modulus(c);
	if (c->bcd)
		count = count / 1000 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 | count % 10;
	return (uint16_t)count;
}

static int output(const struct dwc_pit_channel *c, uint64_t tick)
{
	uint64_t gone = counted(c, tick);

	switch (c->mode) {
	case 0:
		return c->state != EMPTY && gone >= c->reload;
	case 1:
		return c->state != RUNNING || gone >= c->reload;
	case 2: /* low for the last tick of a period */
		return c->state != RUNNING || gone % c->reload != c->reload - 1;
	case 3:
		return c->state != RUNNING || gone % c->reload < high_half(c->reload);
	default: /* 4, 5: one low tick when the count ends */
		return c->state == EMPTY || c->state == ARMED || gone != c->reload;
	}
}

/* Rising edges of the output since `start`; they are at the ends of counts. */
static uint64_t rises(const struct dwc_pit_channel *c, uint64_t tick)
{
	uint64_t gone = counted(c, tick);

	if (c->state != RUNNING)
		return 0;
	if (periodic(c))
		return gone / c->reload;
	return c->mode >= 4 ? gone > c->reload : gone >= c->reload;
}

/* Modes 2 and 3 start to use a new count at the end of a period, or of half a period. */
static void take_over_count(struct dwc_pit_channel *c, uint64_t tick)
{
	uint64_t gone;

	if (!c->next || c->state != RUNNING || !periodic(c) || tick < c->next_at)
		return;
	gone = counted(c, c->next_at);
	c->rises += rises(c, c->next_at);
	c->start = c->next_at;
	if (gone % c->reload) /* the half in which the output is low comes now */
		c->start -= high_half(c->next);
	c->reload = c->next;
	c->next = 0;
}

void dwc_pit_init(struct dwc_pit *pit)
{
	memset(pit, 0, sizeof *pit);
	for (int i = 0; i < 3; i++) {
		pit->channel[i].reload = 65536;
		pit->channel[i].mode = 3;
		pit->channel[i].access = 3;
		pit->channel[i].gate = i != 2;
		pit->channel[i].state = i != 2 ? RUNNING : HELD; /* as firmware leaves it: 18.2 Hz, masked in the 8259 */
	}
}

uint64_t dwc_pit_deadline(const struct dwc_pit *pit, uint64_t now_ns)
{
	struct dwc_pit_channel c = pit->channel[0];
	uint64_t tick = ticks_of(now_ns), seen, at;

	take_over_count(&c, tick);
	seen = rises(&c, tick);
	if (c.state != RUNNING || (!periodic(&c) && seen))
		return UINT64_MAX;
	if (!periodic(&c))
		return ns_of(c.start + c.reload + (c.mode >= 4));
	at = c.start + (seen + 1) * c.reload;
	if (c.next && at > c.next_at)
		at = c.next_at + c.next - high_half(c.next);
	return ns_of(at);
}

int dwc_pit_output(const struct dwc_pit *pit, uint64_t now_ns)
{
	struct dwc_pit_channel c = pit->channel[0];

	take_over_count(&c, ticks_of(now_ns));
	return output(&c, ticks_of(now_ns));
}

/* Interrupts of channel 0 since the last call. */
unsigned dwc_pit_edges(struct dwc_pit *pit, uint64_t now_ns)
{
	struct dwc_pit_channel *c = &pit->channel[0];
	uint64_t tick = ticks_of(now_ns), fresh;

	take_over_count(c, tick);
	fresh = c->rises + rises(c, tick) - pit->edges_taken;
	pit->edges_taken += fresh;
	return fresh > UINT32_MAX ? UINT32_MAX : (unsigned)fresh;
}

/* The channel is about to be changed: count its edges up to now. */
static void leave(struct dwc_pit_channel *c, uint64_t tick, uint8_t state)
{
	c->rises += rises(c, tick);
	c->state = state;
	c->start = tick;
	c->held = 0;
}

static void load(struct dwc_pit_channel *c, uint32_t value, uint64_t tick)
{
	uint64_t phase;

	if (c->bcd)
		value = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15);
	if (!value)
		value = modulus(c);
	if (value == 1 && periodic(c))
		value = 2; /* the data sheet forbids a count of 1 here */
	if (c->state == RUNNING && (periodic(c) || triggered(c))) { /* the current count goes on undisturbed */
		c->next = value;
		phase = counted(c, tick) % c->reload;
		c->next_at = tick - phase + (c->mode == 3 && phase < high_half(c->reload) ? high_half(c->reload) : c->reload);
		return;
	}
	leave(c, tick, triggered(c) ? ARMED : c->gate ? RUNNING : HELD);
	c->reload = value;
}

static void latch_count(struct dwc_pit_channel *c, uint64_t tick)
{
	if (c->latched)
		return;
	c->latch = count_now(c, tick);
	c->latched = c->access;
}

static void read_back(struct dwc_pit *pit, uint8_t value, uint64_t tick)
{
	for (int i = 0; i < 3; i++) {
		struct dwc_pit_channel *c = &pit->channel[i];
		int null_count = c->state == EMPTY || c->state == ARMED || c->next;

		if (!(value & (2u << i)))
			continue;
		if (!(value & 0x20))
			latch_count(c, tick);
		if (!(value & 0x10) && !c->status_latched) {
			c->status = (uint8_t)(output(c, tick) << 7 | null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd);
			c->status_latched = 1;
		}
	}
}

static void control(struct dwc_pit *pit, uint8_t value, uint64_t tick)
{
	unsigned index = value >> 6, access = (value >> 4) & 3;
	struct dwc_pit_channel *c;

	if (index == 3) {
		read_back(pit, value, tick);
		return;
	}
	c = &pit->channel[index];
	if (!access) {
		latch_count(c, tick);
		return;
	}
	leave(c, tick, EMPTY);
	c->access = (uint8_t)access;
	c->bcd = value & 1;
	c->mode = (value >> 1) & 7;
	if (c->mode > 5)
		c->mode -= 4; /* bit 2 is ignored for modes 2 and 3 */
	c->next = 0;
	c->write_high = c->read_high = c->latched = c->status_latched = 0;
}

/* The gate of channel 2, the only one that can change. A low gate stops the counts of modes 0 and 4, and those of 2 and 3 with their
 * output high; a rising one starts all but 0 and 4 anew (the data sheet's table of gate operations). */
static void move_gate(struct dwc_pit_channel *c, int high, uint64_t tick)
{
	uint64_t gone = counted(c, tick);

	if (high == c->gate)
		return;
	c->gate = (uint8_t)high;
	if (c->state == EMPTY)
		return;
	if (!high && !triggered(c)) {
		leave(c, tick, HELD);
		c->held = gone;
	} else if (high && !triggered(c) && !periodic(c)) {
		leave(c, tick, RUNNING);
		c->start -= gone;
	} else if (high) {
		leave(c, tick, RUNNING);
		if (c->next)
			c->reload = c->next;
		c->next = 0;
	}
}

uint8_t dwc_pit_read(struct dwc_pit *pit, uint16_t port, uint64_t now_ns)
{
	uint64_t tick = ticks_of(now_ns);
	struct dwc_pit_channel *c;
	uint16_t count;

	for (int i = 0; i < 3; i++)
		take_over_count(&pit->channel[i], tick);
	if (port == 0x61) {
		pit->refresh ^= 0x10;
		return (uint8_t)(pit->speaker | pit->refresh | output(&pit->channel[2], tick) << 5);
	}
	if (port == 0x43)
		return 0xff; /* write only */
	c = &pit->channel[port & 3];
	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	count = c->latched ? c->latch : count_now(c, tick);
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
	uint64_t tick = ticks_of(now_ns);
	struct dwc_pit_channel *c;

	for (int i = 0; i < 3; i++)
		take_over_count(&pit->channel[i], tick);
	if (port == 0x61) {
		pit->speaker = value & 3;
		move_gate(&pit->channel[2], value & 1, tick);
		return;
	}
	if (port == 0x43) {
		control(pit, value, tick);
		return;
	}
	c = &pit->channel[port & 3];
	if (c->access == 1) {
		load(c, value, tick);
	} else if (c->access == 2) {
		load(c, (uint32_t)value << 8, tick);
	} else if (!c->write_high) {
		c->low_byte = value;
		c->write_high = 1;
		if (c->mode == 0) /* the first byte stops the count */
			leave(c, tick, EMPTY);
	} else {
		c->write_high = 0;
		load(c, (uint32_t)value << 8 | c->low_byte, tick);
	}
}
