/* An engine's life: it is made, started, stopped, and freed, in this order. */
#ifndef DWC_SETUP_H
#define DWC_SETUP_H

struct dwc_config;
struct dwc_engine;

int dwc_engine_init(struct dwc_engine *e, const struct dwc_config *config);
int dwc_engine_start(struct dwc_engine *e);
void dwc_engine_stop(struct dwc_engine *e);
void dwc_engine_free(struct dwc_engine *e);

#endif
