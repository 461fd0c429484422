/* What an assertion that fails leaves behind: one line on standard error, and a core dump. */
#include "assertion.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine.h"
#include "phase.h"

const char *dwc_phase_name(enum dwc_phase phase)
{
	static const char *const names[DWC_PHASES] = {
		[DWC_PHASE_BETWEEN] = "BETWEEN",
		[DWC_PHASE_FRAGMENT] = "FRAGMENT",
		[DWC_PHASE_INPUTS_CHOSEN] = "INPUTS_CHOSEN",
		[DWC_PHASE_START_VISITED] = "START_VISITED",
		[DWC_PHASE_RUNNING] = "RUNNING",
		[DWC_PHASE_FIRST_RUN_DONE] = "FIRST_RUN_DONE",
		[DWC_PHASE_BOTH_ENDED] = "BOTH_ENDED",
		[DWC_PHASE_COMPARED] = "COMPARED",
		[DWC_PHASE_DISCARDED] = "DISCARDED",
		[DWC_PHASE_ROLLING_BACK] = "ROLLING_BACK",
	};

	return phase < DWC_PHASES ? names[phase] : "none";
}

_Noreturn void dwc_assertion_failed(const struct dwc_engine *e, const char *condition, const char *file, int line)
{
	dprintf(STDERR_FILENO, "dwcvmm: %s:%d: assertion failed in element %llu, phase %s: %s\n", file, line,
		(unsigned long long)e->stats.committed, dwc_phase_name(e->phase), condition);
	abort();
}
