/* What an instruction is to the engine, by its first bytes. Not a disassembler: it knows the few that matter here. */
#include "vcpu/insn.h"

#define OPERAND_SIZE 0x66
#define REPNE 0xf2
#define REP 0xf3
#define TWO_BYTES 0x0f
#define REX_W 8
#define REX_B 1

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

/* The group 9 of opcodes with a register: RDRAND, RDSEED, RDPID (SDM 2D, table A-6). */
static void read_of_group_9(uint8_t modrm, int repeats, struct dwc_host_read *read)
{
	if (modrm >> 6 != 3)
		return;
	if ((modrm >> 3 & 7) == 6 && !repeats)
		read->kind = DWC_READ_RDRAND;
	else if ((modrm >> 3 & 7) == 7)
		read->kind = repeats ? DWC_READ_RDPID : DWC_READ_RDSEED;
}

/* An instruction that reads what is the host's and not the guest's: a clock, randomness, the number of a CPU, which registers are in
 * use. None of them can be trapped on every stock KVM. kind DWC_READ_NOTHING: it is another one. */
void dwc_host_read_at(const uint8_t *code, unsigned bits, struct dwc_host_read *read)
{
	unsigned at = 0;
	uint8_t rex = 0;
	int repeats, narrow;

	read->kind = DWC_READ_NOTHING;
	while (at < 2 && (code[at] == OPERAND_SIZE || code[at] == REP))
		at++;
	repeats = at && (code[0] == REP || code[at - 1] == REP);
	narrow = (at && (code[0] == OPERAND_SIZE || code[at - 1] == OPERAND_SIZE)) != (bits == 16);
	if (bits == 64 && (code[at] & 0xf0) == 0x40)
		rex = code[at++];
	if (code[at] != TWO_BYTES)
		return;
	if (!at && code[1] == 0x31)
		read->kind = DWC_READ_RDTSC;
	else if (!at && code[1] == 0x01 && code[2] == 0xf9)
		read->kind = DWC_READ_RDTSCP;
	else if (!at && code[1] == 0x01 && code[2] == 0xd0)
		read->kind = DWC_READ_XGETBV;
	else if (code[at + 1] == 0xc7)
		read_of_group_9(code[at + 2], repeats, read);
	read->length = (uint8_t)(at + (read->kind == DWC_READ_RDTSC ? 2 : 3));
	read->reg = (uint8_t)((code[at + 2] & 7) | (rex & REX_B) << 3);
	if (read->kind == DWC_READ_RDPID) /* as wide as the mode, whatever stands before it */
		read->bytes = bits == 64 ? 8 : 4;
	else
		read->bytes = rex & REX_W ? 8 : narrow ? 2 : 4; /* REX.W has precedence */
}
