/* The local APIC of the one CPU, in xAPIC mode (SDM 3A, chapter 11). Its timer counts nanoseconds of the guest clock, as
 * KVM's does. There is no other CPU: interrupts sent to others are lost. SMI is not delivered. */
#include "pc/lapic.h"

#include <errno.h>
#include <string.h>

enum { /* register offsets, table 11-1 */
	ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ISR = 0x100,
	TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR_LOW = 0x300, ICR_HIGH = 0x310, LVT = 0x320, LVT_LAST = 0x370,
	INITIAL_COUNT = 0x380, CURRENT_COUNT = 0x390, DIVIDE = 0x3e0,
};

#define VERSION_VALUE 0x00050014 /* six LVT entries */
#define ENABLED 0x100
#define MASKED 0x10000
#define PERIODIC 0x20000
#define MODE(lvt) (((lvt) >> 8) & 7)
#define MODE_NMI 4
#define MODE_EXTINT 7
#define ILLEGAL_VECTOR_SENT 0x20
#define ILLEGAL_VECTOR_RECEIVED 0x40
#define ILLEGAL_REGISTER 0x80
#define SHORTHAND(icr) (((icr) >> 18) & 3)

static const uint32_t lvt_writable[DWC_LAPIC_LVTS] = { 0x300ff | MASKED, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff };

/* As firmware leaves it: a virtual wire from the 8259 (section 11.12.3 has the LVTs). */
void dwc_lapic_init(struct dwc_lapic *a)
{
	memset(a, 0, sizeof *a);
	a->dfr = 0xffffffff;
	a->svr = 0xff;
	for (int i = 0; i < DWC_LAPIC_LVTS; i++)
		a->lvt[i] = MASKED;
	a->lvt[DWC_LVT_LINT0] = MODE_EXTINT << 8;
}

static int highest(const uint32_t *set)
{
	for (int i = 7; i >= 0; i--)
		if (set[i])
			return 32 * i + 31 - __builtin_clz(set[i]);
	return -1;
}

static void put(uint32_t *set, unsigned vector, int on)
{
	if (on)
		set[vector / 32] |= 1u << (vector % 32);
	else
		set[vector / 32] &= ~(1u << (vector % 32));
}

/* 11.8.3.1 */
static uint32_t processor_priority(const struct dwc_lapic *a)
{
	int in_service = highest(a->isr);
	uint32_t class = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;

	return (a->tpr & 0xf0) >= class ? a->tpr : class;
}

/* An interrupt message arrives (from the IO-APIC, an MSI, an IPI, the LVT). */
void dwc_lapic_accept(struct dwc_lapic *a, unsigned vector, int level)
{
	if (vector < 16) {
		a->errors |= ILLEGAL_VECTOR_RECEIVED;
		return;
	}
	if (!(a->svr & ENABLED))
		return;
	put(a->irr, vector, 1);
	put(a->tmr, vector, level);
}

/* The vector that would be delivered to the CPU now, or -1. */
int dwc_lapic_pending(const struct dwc_lapic *a)
{
	int vector = highest(a->irr);

	return vector >= 0 && a->svr & ENABLED && ((uint32_t)vector & 0xf0) > (processor_priority(a) & 0xf0) ? vector : -1;
}

int dwc_lapic_acknowledge(struct dwc_lapic *a)
{
	int vector = dwc_lapic_pending(a);

	if (vector >= 0) {
		put(a->irr, (unsigned)vector, 0);
		put(a->isr, (unsigned)vector, 1);
	}
	return vector;
}

/* Whether interrupts of the 8259 pass through LINT0. */
int dwc_lapic_wire(const struct dwc_lapic *a)
{
	uint32_t lvt = a->lvt[DWC_LVT_LINT0];

	return !(lvt & MASKED) && MODE(lvt) == MODE_EXTINT;
}

/* Whether a message for `destination` reaches this CPU. Logical: flat or cluster model (11.6.2.2). */
int dwc_lapic_is_meant(const struct dwc_lapic *a, unsigned destination, int logical)
{
	unsigned mine = a->ldr >> 24;

	if (!logical)
		return destination == 0xff || destination == a->id >> 24;
	if (a->dfr >> 28 == 0xf)
		return (destination & mine) != 0;
	return (destination >> 4 == 0xf || destination >> 4 == mine >> 4) && (destination & mine & 0xf);
}

/* CR8 is bits 7 to 4 of TPR (11.8.6). */
void dwc_lapic_set_cr8(struct dwc_lapic *a, unsigned cr8)
{
	if (a->tpr >> 4 != cr8)
		a->tpr = cr8 << 4;
}

static uint64_t divisor(const struct dwc_lapic *a)
{
	unsigned value = (a->divide & 3) | ((a->divide >> 1) & 4);

	return value == 7 ? 1 : 2ull << value;
}

static uint64_t ticks(const struct dwc_lapic *a, uint64_t now_ns)
{
	return (now_ns - a->start_ns) / divisor(a);
}

static uint32_t current_count(const struct dwc_lapic *a, uint64_t now_ns)
{
	uint64_t passed = ticks(a, now_ns);

	if (!a->initial_count)
		return 0;
	if (a->lvt[DWC_LVT_TIMER] & PERIODIC)
		return (uint32_t)(a->initial_count - passed % a->initial_count);
	return passed >= a->initial_count ? 0 : (uint32_t)(a->initial_count - passed);
}

/* How many times the timer has reached zero. */
static uint64_t expirations(const struct dwc_lapic *a, uint64_t now_ns)
{
	uint64_t count = a->initial_count ? ticks(a, now_ns) / a->initial_count : 0;

	return count > 1 && !(a->lvt[DWC_LVT_TIMER] & PERIODIC) ? 1 : count;
}

/* Bring the timer up to the guest clock. Several periods that have passed make one interrupt. */
void dwc_lapic_tick(struct dwc_lapic *a, uint64_t now_ns)
{
	uint64_t count = expirations(a, now_ns);

	if (count > a->expirations_taken && !(a->lvt[DWC_LVT_TIMER] & MASKED))
		dwc_lapic_accept(a, a->lvt[DWC_LVT_TIMER] & 0xff, 0);
	a->expirations_taken = count;
}

/* Guest time of the next timer interrupt, or UINT64_MAX. */
uint64_t dwc_lapic_deadline(const struct dwc_lapic *a)
{
	uint64_t period = a->initial_count * divisor(a);

	if (!a->initial_count || a->lvt[DWC_LVT_TIMER] & MASKED || !(a->svr & ENABLED))
		return UINT64_MAX;
	if (a->expirations_taken && !(a->lvt[DWC_LVT_TIMER] & PERIODIC))
		return UINT64_MAX;
	return a->start_ns + (a->expirations_taken + 1) * period;
}

static void start_timer(struct dwc_lapic *a, uint64_t now_ns)
{
	a->start_ns = now_ns;
	a->expirations_taken = 0;
}

/* 11.6.1: fixed, lowest priority and NMI, to this CPU. */
static void send(struct dwc_lapic *a)
{
	unsigned mode = MODE(a->icr_low), shorthand = SHORTHAND(a->icr_low), vector = a->icr_low & 0xff;

	if ((mode > 1 && mode != MODE_NMI) || shorthand == 3)
		return;
	if (!shorthand && !dwc_lapic_is_meant(a, a->icr_high >> 24, (a->icr_low >> 11) & 1))
		return;
	if (mode == MODE_NMI)
		a->nmi = 1;
	else if (vector < 16)
		a->errors |= ILLEGAL_VECTOR_SENT;
	else
		dwc_lapic_accept(a, vector, 0);
}

uint32_t dwc_lapic_read(struct dwc_lapic *a, unsigned offset, uint64_t now_ns)
{
	switch (offset) {
	case ID:
		return a->id;
	case VERSION:
		return VERSION_VALUE;
	case TPR:
		return a->tpr;
	case PPR:
		return processor_priority(a);
	case LDR:
		return a->ldr;
	case DFR:
		return a->dfr;
	case SVR:
		return a->svr;
	case ESR:
		return a->esr;
	case ICR_LOW:
		return a->icr_low; /* never pending: it is delivered at once */
	case ICR_HIGH:
		return a->icr_high;
	case INITIAL_COUNT:
		return a->initial_count;
	case CURRENT_COUNT:
		return current_count(a, now_ns);
	case DIVIDE:
		return a->divide;
	}
	if (offset >= ISR && offset < ESR && offset % 16 == 0)
		return (offset < TMR ? a->isr : offset < IRR ? a->tmr : a->irr)[(offset / 16) & 7];
	if (offset >= LVT && offset <= LVT_LAST && offset % 16 == 0)
		return a->lvt[(offset - LVT) / 16];
	a->errors |= ILLEGAL_REGISTER;
	return 0;
}

static void write_svr(struct dwc_lapic *a, uint32_t value)
{
	a->svr = value & 0x3ff;
	if (!(value & ENABLED)) /* 11.4.7.2 */
		for (int i = 0; i < DWC_LAPIC_LVTS; i++)
			a->lvt[i] |= MASKED;
}

/* Returns the vector if this ended a level-triggered interrupt, which the IO-APIC has to be told; else -1. */
static int end_of_interrupt(struct dwc_lapic *a)
{
	int vector = highest(a->isr);

	if (vector < 0)
		return -1;
	put(a->isr, (unsigned)vector, 0);
	return a->tmr[vector / 32] & 1u << (vector % 32) ? vector : -1;
}

/* Write a register. Returns as end_of_interrupt() does. */
int dwc_lapic_write(struct dwc_lapic *a, unsigned offset, uint32_t value, uint64_t now_ns)
{
	switch (offset) {
	case ID:
		a->id = value & 0xff000000;
		return -1;
	case TPR:
		a->tpr = value & 0xff;
		return -1;
	case EOI:
		return end_of_interrupt(a);
	case LDR:
		a->ldr = value & 0xff000000;
		return -1;
	case DFR:
		a->dfr = value | 0x0fffffff;
		return -1;
	case SVR:
		write_svr(a, value);
		return -1;
	case ESR: /* a write latches the errors collected so far (11.5.3) */
		a->esr = a->errors;
		a->errors = 0;
		return -1;
	case ICR_LOW:
		a->icr_low = value & 0xcdfff & ~0x1000u;
		send(a);
		return -1;
	case ICR_HIGH:
		a->icr_high = value & 0xff000000;
		return -1;
	case INITIAL_COUNT:
		a->initial_count = value;
		start_timer(a, now_ns);
		return -1;
	case DIVIDE:
		a->divide = value & 0xb;
		start_timer(a, now_ns);
		return -1;
	}
	if (offset >= LVT && offset <= LVT_LAST && offset % 16 == 0) {
		unsigned i = (offset - LVT) / 16;

		a->lvt[i] = (value & lvt_writable[i]) | (a->svr & ENABLED ? 0 : MASKED);
		if (i == DWC_LVT_TIMER) /* periods that passed while it was masked do not interrupt later */
			a->expirations_taken = expirations(a, now_ns);
	} else {
		a->errors |= ILLEGAL_REGISTER;
	}
	return -1;
}
