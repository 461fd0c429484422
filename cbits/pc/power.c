/* The power button, and the ways in which a guest ends the run. A write that ends it is refused (0) until its element is committed. */
#include "pc/power.h"

#include "pc/access.h"

#define PWRBTN (1u << 8) /* ACPI 4.8.3.1: of PM1 status, and of PM1 enable */
#define SCI_EN (1u << 0) /* 4.8.3.2.1: of PM1 control */
#define SLP_EN (1u << 13)
#define RESET_CPU (1u << 2)

/* PM1a_EVT, 16 bits of status and 16 of enables (4.8.3.1). Ones that are written to the status clear it. The power button is the only
 * event: the PM timer's overflow, which sets TMR_STS on hardware, is not reported. */
int dwc_power_events(struct dwc_power *p, const struct dwc_access *a)
{
	uint64_t both = (uint64_t)p->events_enabled << 16 | p->events;

	if (a->written) {
		p->events &= (uint16_t)~dwc_merged(a, a->at, 0);
		p->events_enabled = (uint16_t)(dwc_merged(a, a->at, both) >> 16);
	} else {
		dwc_answer(a, a->at, both);
	}
	return 1;
}

/* The button is pressed: hardware notes it whether the guest has enabled the event or not (4.8.2.2.1). */
void dwc_power_press_button(struct dwc_power *p)
{
	p->events |= PWRBTN;
}

/* Whether the guest is told of a press: it is in ACPI mode from the start, so that the enable bit says it. */
int dwc_power_button_enabled(const struct dwc_power *p)
{
	return (p->events_enabled & PWRBTN) != 0;
}

/* The level of the SCI. */
int dwc_power_irq(const struct dwc_power *p)
{
	return (p->events & p->events_enabled) != 0;
}

/* PM1a_CNT, 16 bits. The machine is always in ACPI mode. */
int dwc_power_control(struct dwc_power *p, const struct dwc_access *a)
{
	uint16_t value;

	if (!a->written) {
		dwc_answer(a, a->at, p->control | SCI_EN);
		return 1;
	}
	value = (uint16_t)dwc_merged(a, a->at, p->control);
	if (value & SLP_EN && !a->committed)
		return 0;
	p->control = value;
	if (value & SLP_EN)
		p->end = DWC_POWER_OFF;
	return 1;
}

/* The reset register of a PC's chip set, a byte. */
int dwc_power_reset(struct dwc_power *p, const struct dwc_access *a)
{
	if (!a->written) {
		dwc_answer(a, 0, p->reset);
		return 1;
	}
	if (a->written[0] & RESET_CPU && !a->committed)
		return 0;
	p->reset = a->written[0] & (uint8_t)~RESET_CPU;
	if (a->written[0] & RESET_CPU)
		p->end = DWC_POWER_RESET;
	return 1;
}
