/* 8259A: one chip of the pair. Register names are the data sheet's (Intel 231468). */
#ifndef DWC_PC_PIC_H
#define DWC_PC_PIC_H

#include <stdint.h>

struct dwc_pic_chip {
	uint8_t irr, imr, isr, elcr, lines;
	uint8_t vector_base, init_step, read_isr, poll, auto_eoi, rotate_auto, special_mask, single, needs_icw4;
	uint8_t lowest; /* the IRQ of lowest priority, 7 after reset */
};

struct dwc_pic {
	struct dwc_pic_chip chip[2]; /* master, slave on IRQ 2 */
};

void dwc_pic_init(struct dwc_pic *pic);
void dwc_pic_set_irq(struct dwc_pic *pic, unsigned irq, int level);
int dwc_pic_pending(const struct dwc_pic *pic);
int dwc_pic_acknowledge(struct dwc_pic *pic);
uint8_t dwc_pic_read(struct dwc_pic *pic, uint16_t port);
void dwc_pic_write(struct dwc_pic *pic, uint16_t port, uint8_t value);

#endif
