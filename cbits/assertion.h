/* Assertions. They stay in release builds: a machine that went on from an impossible state would protect nothing. */
#ifndef DWC_ASSERTION_H
#define DWC_ASSERTION_H

#include "phase.h"

struct dwc_engine;

/* A condition that only a bug of this program can violate. The process prints it with element and phase, and aborts. */
#define DWC_ASSERT(e, condition) \
	(__builtin_expect(!(condition), 0) ? dwc_assertion_failed((e), #condition, __FILE__, __LINE__) : (void)0)

const char *dwc_phase_name(enum dwc_phase phase);
_Noreturn void dwc_assertion_failed(const struct dwc_engine *e, const char *condition, const char *file, int line);

#endif
