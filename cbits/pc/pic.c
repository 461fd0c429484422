/* The PC's pair of 8259A interrupt controllers (Intel 231468-003). */
#include "pc/pic.h"

#include <string.h>

#define SLAVE_IRQ 2
#define SPURIOUS_IRQ 7
#define LEVEL_IRQS (1u << 1 | 1u << 2 | 1u << 3) /* 9 is ACPI's, 10 and 11 are PCI's: all may be shared */

void dwc_pic_init(struct dwc_pic *pic)
{
	memset(pic, 0, sizeof *pic);
	for (int i = 0; i < 2; i++) {
		pic->chip[i].lowest = 7;
		pic->chip[i].imr = 0xff; /* as firmware leaves it */
	}
	pic->chip[0].vector_base = 0x08;
	pic->chip[1].vector_base = 0x70;
	pic->chip[1].elcr = LEVEL_IRQS;
}

/* The IRQ of highest priority in a set, or -1; `above` limits it to those above an in-service one. */
static int highest(const struct dwc_pic_chip *c, uint8_t set)
{
	for (unsigned i = 1; i <= 8; i++) {
		unsigned irq = (c->lowest + i) & 7;

		if (set & (1u << irq))
			return (int)irq;
	}
	return -1;
}

static unsigned rank(const struct dwc_pic_chip *c, int irq)
{
	return ((unsigned)irq - c->lowest - 1) & 7;
}

static int next_irq(const struct dwc_pic_chip *c, int cascade)
{
	int irq = highest(c, c->irr & (uint8_t)~c->imr);
	uint8_t in_service = c->isr;
	int busy;

	if (irq < 0)
		return -1;
	if (c->special_mask)
		in_service &= (uint8_t)~c->imr;
	/* the slave can interrupt the master again while the master serves one of the slave's lower-priority interrupts */
	if (cascade && irq == SLAVE_IRQ)
		in_service &= (uint8_t)~(1u << SLAVE_IRQ);
	busy = highest(c, in_service);
	return busy < 0 || rank(c, irq) < rank(c, busy) ? irq : -1;
}

static void set_line(struct dwc_pic_chip *c, unsigned irq, int level)
{
	uint8_t bit = (uint8_t)(1u << irq);

	if (!level) {
		c->lines &= (uint8_t)~bit;
		c->irr &= (uint8_t)~bit; /* a request must stay up until it is acknowledged */
		return;
	}
	if (!(c->lines & bit) || (c->elcr & bit))
		c->irr |= bit;
	c->lines |= bit;
}

static void cascade(struct dwc_pic *pic)
{
	/* level-like: another request on the slave must show although the line never fell */
	if (next_irq(&pic->chip[1], 0) >= 0) {
		pic->chip[0].irr |= 1u << SLAVE_IRQ;
		pic->chip[0].lines |= 1u << SLAVE_IRQ;
	} else {
		set_line(&pic->chip[0], SLAVE_IRQ, 0);
	}
}

void dwc_pic_set_irq(struct dwc_pic *pic, unsigned irq, int level)
{
	set_line(&pic->chip[irq >> 3], irq & 7, level);
	cascade(pic);
}

int dwc_pic_pending(const struct dwc_pic *pic)
{
	return next_irq(&pic->chip[0], 1) >= 0;
}

static int acknowledge_chip(struct dwc_pic_chip *c, int irq)
{
	uint8_t bit = (uint8_t)(1u << irq);

	if (!(c->elcr & bit) || !(c->lines & bit))
		c->irr &= (uint8_t)~bit;
	if (c->auto_eoi) {
		if (c->rotate_auto)
			c->lowest = (uint8_t)irq;
	} else {
		c->isr |= bit;
	}
	return c->vector_base + irq;
}

/* The INTA cycle: returns the vector. A request that is gone by now reads as IRQ 7. */
int dwc_pic_acknowledge(struct dwc_pic *pic)
{
	struct dwc_pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
	int irq = next_irq(master, 1), vector;

	if (irq < 0)
		return master->vector_base + SPURIOUS_IRQ;
	vector = acknowledge_chip(master, irq);
	if (irq == SLAVE_IRQ) {
		irq = next_irq(slave, 0);
		vector = irq < 0 ? slave->vector_base + SPURIOUS_IRQ : acknowledge_chip(slave, irq);
	}
	cascade(pic);
	return vector;
}

static void write_icw1(struct dwc_pic_chip *c, uint8_t value)
{
	uint8_t elcr = c->elcr, lines = c->lines, base = c->vector_base;

	memset(c, 0, sizeof *c);
	c->elcr = elcr;
	c->lines = lines;
	c->irr = lines & elcr; /* edges from before the initialisation are dropped */
	c->vector_base = base;
	c->lowest = 7;
	c->single = (value >> 1) & 1;
	c->needs_icw4 = value & 1;
	c->init_step = 2;
}

static void write_ocw2(struct dwc_pic_chip *c, uint8_t value)
{
	unsigned command = value >> 5;
	int irq;

	switch (command) {
	case 1: /* non-specific EOI */
	case 5: /* rotate on non-specific EOI */
		irq = highest(c, c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr);
		if (irq < 0)
			return;
		break;
	case 3: /* specific EOI */
	case 7: /* rotate on specific EOI */
		irq = value & 7;
		break;
	case 6: /* set priority */
		c->lowest = value & 7;
		return;
	case 0:
	case 4: /* rotate in automatic EOI mode */
		c->rotate_auto = command == 4;
		return;
	default:
		return;
	}
	c->isr &= (uint8_t)~(1u << irq);
	if (command & 4)
		c->lowest = (uint8_t)irq;
}

static void write_ocw3(struct dwc_pic_chip *c, uint8_t value)
{
	if (value & 0x04)
		c->poll = 1;
	if (value & 0x02)
		c->read_isr = value & 1;
	if (value & 0x40)
		c->special_mask = (value >> 5) & 1;
}

static void write_data(struct dwc_pic_chip *c, uint8_t value)
{
	switch (c->init_step) {
	case 2:
		c->vector_base = value & 0xf8;
		c->init_step = c->single ? (c->needs_icw4 ? 4 : 0) : 3;
		break;
	case 3: /* ICW3: the cascade is fixed */
		c->init_step = c->needs_icw4 ? 4 : 0;
		break;
	case 4:
		c->auto_eoi = (value >> 1) & 1;
		c->init_step = 0;
		break;
	default:
		c->imr = value;
		break;
	}
}

static struct dwc_pic_chip *chip_of(struct dwc_pic *pic, uint16_t port)
{
	return &pic->chip[port < 0x4d0 ? port >= 0xa0 : port & 1];
}

uint8_t dwc_pic_read(struct dwc_pic *pic, uint16_t port)
{
	struct dwc_pic_chip *c = chip_of(pic, port);
	uint8_t value;

	if (port >= 0x4d0)
		return c->elcr;
	if (c->poll) {
		int irq = next_irq(c, c == &pic->chip[0]);

		c->poll = 0;
		if (irq < 0)
			return 0;
		acknowledge_chip(c, irq);
		value = (uint8_t)(0x80 | irq);
		cascade(pic);
		return value;
	}
	if (port & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

void dwc_pic_write(struct dwc_pic *pic, uint16_t port, uint8_t value)
{
	struct dwc_pic_chip *c = chip_of(pic, port);

	if (port >= 0x4d0)
		c->elcr = value & (port & 1 ? 0xde : 0xf8); /* IRQ 0, 1, 2, 8 and 13 are always edges */
	else if (port & 1)
		write_data(c, value);
	else if (value & 0x10)
		write_icw1(c, value);
	else if (value & 0x08)
		write_ocw3(c, value);
	else
		write_ocw2(c, value);
	cascade(pic);
}
