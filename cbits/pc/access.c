/* Registers that can be accessed in parts. */
#include "pc/access.h"

#define REGISTER_BYTES 8

/* Answer a read from byte `at` of a register on; beyond its 64 bits there are zeros. */
void dwc_answer(const struct dwc_access *a, unsigned at, uint64_t value)
{
	for (unsigned i = 0; i < a->size; i++)
		a->read[i] = at + i < REGISTER_BYTES ? (uint8_t)(value >> 8 * (at + i)) : 0;
}

/* What a register holds after a write to it, from its byte `at` on. */
uint64_t dwc_merged(const struct dwc_access *a, unsigned at, uint64_t value)
{
	for (unsigned i = 0; i < a->size && at + i < REGISTER_BYTES; i++) {
		value &= ~((uint64_t)0xff << 8 * (at + i));
		value |= (uint64_t)a->written[i] << 8 * (at + i);
	}
	return value;
}
