/* The power button, and the ways in which a guest ends the run: ACPI's PM1a registers (ACPI 6.4, 4.8.3), and the chip set's reset
 * register. */
#ifndef DWC_PC_POWER_H
#define DWC_PC_POWER_H

#include <stdint.h>

struct dwc_access;

enum dwc_power_end { DWC_POWER_ON, DWC_POWER_OFF, DWC_POWER_RESET };

struct dwc_power {
	uint16_t events, events_enabled, control; /* PM1 status, enable and control */
	uint8_t reset;
	uint8_t end; /* enum dwc_power_end: what the guest has asked for */
};

int dwc_power_events(struct dwc_power *p, const struct dwc_access *a);
void dwc_power_press_button(struct dwc_power *p);
int dwc_power_button_enabled(const struct dwc_power *p);
int dwc_power_irq(const struct dwc_power *p);
int dwc_power_control(struct dwc_power *p, const struct dwc_access *a);
int dwc_power_reset(struct dwc_power *p, const struct dwc_access *a);

#endif
