/* What an instruction is to the engine, by its first bytes. Not a disassembler: it knows the few that matter here. */
#include "core.h"

#define OPERAND_SIZE 0x66
#define REPNE 0xf2
#define REP 0xf3
#define TWO_BYTES 0x0f

/* Legacy prefixes (SDM 2A 2.1.1). */
static int is_prefix(uint8_t byte)
{
	switch (byte) {
	case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: /* segments */
	case OPERAND_SIZE: case 0x67: case 0xf0: case REPNE: case REP:
		return 1;
	default:
		return 0;
	}
}

static int is_string(uint8_t opcode)
{
	return (opcode >= 0x6c && opcode <= 0x6f) || (opcode >= 0xa4 && opcode <= 0xa7) || (opcode >= 0xaa && opcode <= 0xaf);
}

/* Bytes of the string instruction with a repeat prefix that stands there, or 0. It is entered anew after each interrupt, with the
 * same RIP and fewer turns to go. */
unsigned dwc_repeated_string(const uint8_t *code, int long_mode)
{
	unsigned at = 0;
	int repeats = 0;

	while (at < DWC_LONGEST_INSTRUCTION - 2 && is_prefix(code[at])) {
		repeats |= code[at] == REP || code[at] == REPNE;
		at++;
	}
	at += long_mode && (code[at] & 0xf0) == 0x40; /* REX */
	return repeats && is_string(code[at]) ? at + 1 : 0;
}
