/* What an assertion that fails leaves behind: one line on standard error, and a core dump. */
#include "assertion.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "element/phase.h"
#include "engine.h"

_Noreturn void dwc_assertion_failed(const struct dwc_engine *e, const char *condition, const char *file, int line)
{
	dprintf(STDERR_FILENO, "dwcvmm: %s:%d: assertion failed in element %llu, phase %s: %s\n", file, line,
		(unsigned long long)e->stats.committed, dwc_phase_name(e->phase), condition);
	abort();
}
