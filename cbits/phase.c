/* The legal steps between phases. */
#include "phase.h"

#include <stdint.h>
#include <stdio.h>

#include "assertion.h"
#include "engine.h"

#define TO(phase) (1u << DWC_PHASE_##phase)

static const uint16_t steps[DWC_PHASES] = {
	[DWC_PHASE_BETWEEN] = TO(FRAGMENT) | TO(INPUTS_CHOSEN) | TO(ROLLING_BACK),
	[DWC_PHASE_FRAGMENT] = TO(COMPARED),
	/* without a run: single steps have led the replicas to an end, or in place to the end of e1 */
	[DWC_PHASE_INPUTS_CHOSEN] = TO(START_VISITED) | TO(RUNNING) | TO(FIRST_RUN_DONE) | TO(BOTH_ENDED) | TO(ROLLING_BACK),
	[DWC_PHASE_START_VISITED] = TO(RUNNING) | TO(ROLLING_BACK),
	/* to BETWEEN: under `off` an element may end anywhere */
	[DWC_PHASE_RUNNING] = TO(FIRST_RUN_DONE) | TO(BOTH_ENDED) | TO(COMPARED) | TO(DISCARDED) | TO(BETWEEN),
	[DWC_PHASE_FIRST_RUN_DONE] = TO(RUNNING) | TO(BOTH_ENDED) | TO(ROLLING_BACK),
	[DWC_PHASE_BOTH_ENDED] = TO(BETWEEN) | TO(DISCARDED),
	[DWC_PHASE_COMPARED] = TO(BOTH_ENDED) | TO(BETWEEN) | TO(DISCARDED),
	[DWC_PHASE_DISCARDED] = TO(BOTH_ENDED) | TO(ROLLING_BACK),
	[DWC_PHASE_ROLLING_BACK] = TO(BETWEEN) | TO(INPUTS_CHOSEN) | TO(START_VISITED),
};

static _Noreturn void illegal(const struct dwc_engine *e, enum dwc_phase to)
{
	char step[64];

	snprintf(step, sizeof step, "no step leads to %s", dwc_phase_name(to));
	dwc_assertion_failed(e, step, __FILE__, __LINE__);
}

/* Set the phase; nothing else writes it. */
void dwc_set_phase(struct dwc_engine *e, enum dwc_phase to)
{
	if (e->phase >= DWC_PHASES || to >= DWC_PHASES || !(steps[e->phase] >> to & 1))
		illegal(e, to);
	e->phase = to;
}
