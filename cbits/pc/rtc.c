/* The PC's MC146818 (Motorola ADI-1018): clock, alarm, periodic interrupt, and CMOS memory, at ports 0x70 and 0x71. The time is in
 * its registers, in the format that register B asks for, and is brought up to the guest clock at each access. An update takes
 * no time; UIP is set only during the 244 us before it, in which a guest must not begin to read. */
#include "pc/rtc.h"

#include <string.h>

#define NS_PER_S 1000000000ull
#define UIP_NS 244000ull
#define HALF_SECOND_NS 500000000ull /* from the end of a divider reset to the first update */
#define OSCILLATOR_HZ 32768u
#define DAY_S 86400

enum { SECONDS = 0, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR, A, B, C, D, CENTURY = 0x32 };

#define UIP 0x80 /* of A */
#define DIVIDER 0x70
#define DIVIDER_RUNS 0x20 /* this value and those below it; those above are the reset */
#define RATE 0x0f
#define SET 0x80 /* of B */
#define UPDATE 0x10 /* of B and C, as the next two */
#define ALARM 0x20
#define PERIODIC 0x40
#define BINARY 0x04
#define HOURS_24 0x02
#define IRQF 0x80 /* of C */
#define VALID 0x80 /* of D */
#define ANY 0xc0 /* of an alarm register: any value matches */
#define PM 0x80

static unsigned decode(const struct dwc_rtc *r, uint8_t value)
{
	return r->memory[B] & BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static uint8_t encode(const struct dwc_rtc *r, unsigned value)
{
	return (uint8_t)(r->memory[B] & BINARY ? value : value / 10 % 10 << 4 | value % 10);
}

static uint8_t encode_hour(const struct dwc_rtc *r, unsigned hour)
{
	if (r->memory[B] & HOURS_24)
		return encode(r, hour);
	return (uint8_t)(encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? PM : 0));
}

static unsigned decode_hour(const struct dwc_rtc *r, uint8_t value)
{
	if (r->memory[B] & HOURS_24)
		return decode(r, value);
	return decode(r, value & (PM - 1)) % 12 + (value & PM ? 12 : 0);
}

/* Days since 1970-01-01 in the Gregorian calendar, whose 400 years have 146,097 days. Years begin in March here. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
	int64_t y = year - (month < 3), era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * (month + (month < 3 ? 9 : -3)) + 2) / 5 + day - 719469;
}

static int64_t read_time(const struct dwc_rtc *r)
{
	const uint8_t *m = r->memory;
	unsigned month = decode(r, m[MONTH]);
	int64_t year = decode(r, m[CENTURY]) * 100 + decode(r, m[YEAR]);

	month = month < 1 ? 1 : month > 12 ? 12 : month; /* whatever a guest may write */
	return days_of(year, month, decode(r, m[DAY])) * DAY_S + decode_hour(r, m[HOURS]) * 3600 + decode(r, m[MINUTES]) * 60 +
	       decode(r, m[SECONDS]);
}

static void write_time(struct dwc_rtc *r, int64_t time)
{
	int64_t days = time / DAY_S - (time % DAY_S < 0), year = 1970 + (days < 0 ? days / 365 - 1 : days / 366);
	unsigned second = (unsigned)(time - days * DAY_S), month = 12;

	while (days_of(year + 1, 1, 1) <= days)
		year++;
	while (days_of(year, month, 1) > days)
		month--;
	r->memory[SECONDS] = encode(r, second % 60);
	r->memory[MINUTES] = encode(r, second / 60 % 60);
	r->memory[HOURS] = encode_hour(r, second / 3600);
	r->memory[DAY] = encode(r, (unsigned)(days - days_of(year, month, 1) + 1));
	r->memory[MONTH] = encode(r, month);
	r->memory[YEAR] = encode(r, (unsigned)(year % 100));
	r->memory[CENTURY] = encode(r, (unsigned)(year / 100 % 100));
}

/* The day of the week is a counter of its own, which goes on from what a guest has set. */
static void add(struct dwc_rtc *r, uint64_t seconds)
{
	int64_t before = read_time(r), after = before + (int64_t)seconds;
	uint64_t days = (uint64_t)(after / DAY_S - before / DAY_S);

	write_time(r, after);
	r->memory[WEEKDAY] = encode(r, (unsigned)((decode(r, r->memory[WEEKDAY]) + 6 + days) % 7 + 1));
}

static int running(const struct dwc_rtc *r)
{
	return (r->memory[A] & DIVIDER) <= DIVIDER_RUNS;
}

static int updating(const struct dwc_rtc *r)
{
	return running(r) && !(r->memory[B] & SET);
}

static int alarm_is(const struct dwc_rtc *r, unsigned alarm, uint8_t value)
{
	return (r->memory[alarm] & ANY) == ANY || r->memory[alarm] == value;
}

/* Seconds until the alarm, at most a day; UINT64_MAX: no time matches the alarm. */
static uint64_t until_alarm(const struct dwc_rtc *r)
{
	unsigned now = (unsigned)((read_time(r) % DAY_S + DAY_S) % DAY_S), passed = 1, second = 0;

	while (second < 60 && !alarm_is(r, SECONDS_ALARM, encode(r, second)))
		second++;
	if (second == 60) /* no second matches: do not search a whole day each time */
		return UINT64_MAX;
	while (passed <= DAY_S) {
		unsigned then = (now + passed) % DAY_S;

		if (!alarm_is(r, HOURS_ALARM, encode_hour(r, then / 3600)))
			passed += 3600 - then % 3600;
		else if (!alarm_is(r, MINUTES_ALARM, encode(r, then / 60 % 60)))
			passed += 60 - then % 60;
		else if (!alarm_is(r, SECONDS_ALARM, encode(r, then % 60)))
			passed++;
		else
			return passed;
	}
	return UINT64_MAX;
}

/* Period of the periodic interrupt, in ticks of the oscillator (table 5); 0: none. */
static uint64_t period(const struct dwc_rtc *r)
{
	unsigned rate = r->memory[A] & RATE;

	if (!rate)
		return 0;
	return 1ull << (rate < 3 ? rate + 6 : rate - 1);
}

static uint64_t periods(const struct dwc_rtc *r, uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * OSCILLATOR_HZ / NS_PER_S / period(r));
}

/* Bring the registers up to the guest clock. */
static void catch_up(struct dwc_rtc *r, uint64_t now_ns)
{
	uint64_t before = r->seen_ns - r->chain_ns, after = now_ns - r->chain_ns, seconds = after / NS_PER_S - before / NS_PER_S;

	r->seen_ns = now_ns;
	if (running(r) && period(r) && periods(r, after) != periods(r, before))
		r->memory[C] |= PERIODIC;
	if (!updating(r) || !seconds)
		return;
	if (until_alarm(r) <= seconds)
		r->memory[C] |= ALARM;
	add(r, seconds);
	r->memory[C] |= UPDATE;
}

/* After any change: set the interrupt's level, and the time of the next one. While the line is up no new one can be seen. */
static void plan(struct dwc_rtc *r)
{
	uint64_t passed = r->seen_ns - r->chain_ns, second = passed / NS_PER_S, at, ticks;
	uint8_t wanted = r->memory[B];

	r->deadline_ns = UINT64_MAX;
	r->memory[C] &= (uint8_t)~IRQF;
	if (r->memory[C] & wanted & (UPDATE | ALARM | PERIODIC)) {
		r->memory[C] |= IRQF;
		return;
	}
	if (wanted & PERIODIC && running(r) && period(r)) {
		ticks = (periods(r, passed) + 1) * period(r);
		r->deadline_ns = r->chain_ns + (uint64_t)(((unsigned __int128)ticks * NS_PER_S + OSCILLATOR_HZ - 1) / OSCILLATOR_HZ);
	}
	if (!updating(r) || !(wanted & (UPDATE | ALARM)))
		return;
	at = wanted & UPDATE ? 1 : until_alarm(r);
	if (at == UINT64_MAX)
		return;
	at = r->chain_ns + (second + at) * NS_PER_S;
	if (at < r->deadline_ns)
		r->deadline_ns = at;
}

/* `time`: seconds since 1970, UTC, and additional nanoseconds, at guest time 0. */
void dwc_rtc_init(struct dwc_rtc *r, int64_t time, uint32_t ns)
{
	memset(r, 0, sizeof *r);
	r->chain_ns = -(uint64_t)ns;
	r->memory[A] = 0x26; /* as firmware leaves it */
	r->memory[B] = HOURS_24;
	r->memory[D] = VALID;
	write_time(r, time);
	r->memory[WEEKDAY] = (uint8_t)((time / DAY_S + 4) % 7 + 1); /* 1970 began on a Thursday; Sunday is 1 */
	plan(r);
}

void dwc_rtc_tick(struct dwc_rtc *r, uint64_t now_ns)
{
	if (now_ns < r->deadline_ns)
		return;
	catch_up(r, now_ns);
	plan(r);
}

/* Guest time of the next interrupt, or UINT64_MAX. */
uint64_t dwc_rtc_deadline(const struct dwc_rtc *r)
{
	return r->deadline_ns;
}

int dwc_rtc_irq(const struct dwc_rtc *r)
{
	return r->memory[C] >> 7;
}

uint8_t dwc_rtc_read(struct dwc_rtc *r, uint16_t port, uint64_t now_ns)
{
	uint8_t value;

	if (!(port & 1))
		return 0xff; /* write only */
	catch_up(r, now_ns);
	plan(r);
	value = r->memory[r->index];
	if (r->index == A && updating(r) && (now_ns - r->chain_ns) % NS_PER_S >= NS_PER_S - UIP_NS)
		value |= UIP;
	if (r->index == C) {
		r->memory[C] = 0;
		plan(r);
	}
	return value;
}

static void write_b(struct dwc_rtc *r, uint8_t value)
{
	int64_t time = read_time(r);
	unsigned weekday = decode(r, r->memory[WEEKDAY]);
	uint8_t old = r->memory[B];

	r->memory[B] = value & SET ? (uint8_t)(value & ~UPDATE) : value;
	if ((old | value) & SET || !((old ^ value) & (BINARY | HOURS_24)))
		return;
	write_time(r, time); /* in the new format, unless the guest is about to write it */
	r->memory[WEEKDAY] = encode(r, weekday);
}

void dwc_rtc_write(struct dwc_rtc *r, uint16_t port, uint8_t value, uint64_t now_ns)
{
	int ran = running(r);

	if (!(port & 1)) {
		r->index = value & 0x7f; /* bit 7 masks NMI */
		return;
	}
	catch_up(r, now_ns);
	switch (r->index) {
	case A:
		r->memory[A] = value & (uint8_t)~UIP;
		if (!ran && running(r))
			r->chain_ns = now_ns - HALF_SECOND_NS;
		break;
	case B:
		write_b(r, value);
		break;
	case C:
	case D:
		break;
	default:
		r->memory[r->index] = value;
	}
	plan(r);
}
