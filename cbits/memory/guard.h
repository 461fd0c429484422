/* Protects the checkpoint itself: sums of its pages, registers and log. */
#ifndef DWC_MEMORY_GUARD_H
#define DWC_MEMORY_GUARD_H

#include <stdint.h>

#include "vcpu/exit.h"
#include "vcpu/state.h"

struct dwc_engine;
struct dwc_exit;
struct dwc_logged;

/* The state that a rollback restores, and its sums. */
struct dwc_checkpoint {
	uint8_t *ram;
	struct dwc_state state;
	struct dwc_exit exit;      /* the exit at which the checkpoint is */
	uint64_t *sums, sum;       /* of its pages, and of the two above */
	uint64_t *new_sums;        /* of the changed pages, in a commit */
	uint64_t content;          /* a sum of all its pages, which depends on nothing but what is in them */
	int due;                   /* this element ends with a checkpoint: the replicas read all groups */
};

void dwc_set_page_sum(struct dwc_engine *e, uint64_t gpa, uint64_t sum);
uint64_t dwc_content_to_be(const struct dwc_engine *e);
uint64_t dwc_checkpoint_sum(const struct dwc_engine *e);
uint64_t dwc_logged_sum(const struct dwc_logged *l, const struct dwc_exit *before);
int dwc_guard_log(const struct dwc_engine *e);
int dwc_guard_page(struct dwc_engine *e, uint64_t gpa);

#endif
