/* The devices that answer without Python. */
#ifndef DWC_PC_PLATFORM_H
#define DWC_PC_PLATFORM_H

#include <stdint.h>

struct dwc_engine;
struct dwc_exit;

int dwc_platform_mmio(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data);
int dwc_platform_io(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data);
int dwc_platform_read_port(struct dwc_engine *e, uint16_t port);
int dwc_platform_write_port(struct dwc_engine *e, uint16_t port, uint8_t value);
void dwc_platform_tick(struct dwc_engine *e);
uint64_t dwc_platform_deadline(struct dwc_engine *e);

#endif
