/* The end of an element: compare, and make it the checkpoint or log it. */
#ifndef DWC_ELEMENT_COMMIT_H
#define DWC_ELEMENT_COMMIT_H

#include <stdint.h>

struct dwc_engine;
struct dwc_exit;
struct dwc_replica;

int dwc_memory_due(const struct dwc_replica *r);
void dwc_advance_clock(struct dwc_engine *e, uint64_t ran_ns);
int dwc_take_checkpoint(struct dwc_engine *e, const struct dwc_exit *exit);
int dwc_has_ticked(const struct dwc_engine *e);
void dwc_log_element(struct dwc_engine *e);
void dwc_element_over(struct dwc_engine *e);
int dwc_engine_commit(struct dwc_engine *e);
int dwc_engine_commit_stepped(struct dwc_engine *e, uint32_t reason);
int dwc_engine_checkpoint(struct dwc_engine *e);

#endif
