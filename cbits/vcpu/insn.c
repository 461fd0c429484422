/* Classifies instructions by their first bytes. It is not a disassembler: it knows only the few that matter to the engine. Nothing
 * else in the core decodes instructions. */
#include "vcpu/insn.h"

#include <string.h>

#define OPERAND_SIZE 0x66
#define LOCK 0xf0
#define REPNE 0xf2
#define REP 0xf3
#define TWO_BYTES 0x0f
#define REX_W 8
#define REX_B 1
#define BEHIND_PREFIXES 3 /* bytes that are used: opcode and ModRM */

/* A REX prefix counts only directly before the opcode (SDM 2A 2.2.1); of REP and REPNE the last one counts. */
struct prefixes {
	uint8_t count, rex, repeat;
	int operand_size, lock;
};

/* Legacy prefixes (SDM 2A 2.1.1). */
static int is_legacy_prefix(uint8_t byte)
{
	switch (byte) {
	case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: /* segments */
	case OPERAND_SIZE: case 0x67: case LOCK: case REPNE: case REP:
		return 1;
	default:
		return 0;
	}
}

static struct prefixes read_prefixes(const uint8_t *code, unsigned bits)
{
	struct prefixes p = { 0 };

	while (p.count < DWC_LONGEST_INSTRUCTION - 1) {
		uint8_t byte = code[p.count];
		int is_rex = bits == 64 && (byte & 0xf0) == 0x40;

		if (!is_rex && !is_legacy_prefix(byte))
			break;
		p.rex = is_rex ? byte : 0;
		p.operand_size |= byte == OPERAND_SIZE;
		p.lock |= byte == LOCK;
		if (byte == REP || byte == REPNE)
			p.repeat = byte;
		p.count++;
	}
	return p;
}

static int is_string(uint8_t opcode)
{
	return (opcode >= 0x6c && opcode <= 0x6f) || (opcode >= 0xa4 && opcode <= 0xa7) || (opcode >= 0xaa && opcode <= 0xaf);
}

/* SDM 2D, table A-2. */
static enum dwc_insn_kind kind_of_one_byte(const uint8_t *opcode, const struct prefixes *p, unsigned bits)
{
	switch (opcode[0]) {
	case 0x17: /* POP SS */
		return bits == 64 ? DWC_INSN_OTHER : DWC_INSN_LOAD_SS;
	case 0x8e: /* MOV to a segment register */
		return (opcode[1] >> 3 & 7) == 2 ? DWC_INSN_LOAD_SS : DWC_INSN_OTHER;
	case 0x9c:
		return DWC_INSN_PUSHF;
	case 0xcc: case 0xcd:
		return DWC_INSN_INT;
	case 0xce: /* INTO */
		return bits == 64 ? DWC_INSN_OTHER : DWC_INSN_INT;
	case 0xf1:
		return DWC_INSN_ICEBP;
	case 0xf4:
		return DWC_INSN_HLT;
	case 0xfb:
		return DWC_INSN_STI;
	default:
		return p->repeat && is_string(opcode[0]) ? DWC_INSN_STRING : DWC_INSN_OTHER;
	}
}

/* Group 9 with a register (SDM 2D, table A-6). With REP the sixth is SENDUIPI. */
static enum dwc_insn_kind kind_of_group_9(uint8_t modrm, const struct prefixes *p)
{
	if (modrm >> 6 != 3 || p->repeat == REPNE)
		return DWC_INSN_OTHER;
	switch (modrm >> 3 & 7) {
	case 6:
		return p->repeat ? DWC_INSN_OTHER : DWC_READ_RDRAND;
	case 7:
		return p->repeat ? DWC_READ_RDPID : DWC_READ_RDSEED;
	default:
		return DWC_INSN_OTHER;
	}
}

/* Group 7 with a register. XGETBV shares its opcode with others, told apart by prefix. */
static enum dwc_insn_kind kind_of_group_7(uint8_t modrm, const struct prefixes *p)
{
	if (modrm == 0xf9)
		return DWC_READ_RDTSCP;
	return modrm == 0xd0 && !p->repeat && !p->operand_size ? DWC_READ_XGETBV : DWC_INSN_OTHER;
}

/* Opcodes after 0x0f (SDM 2D, table A-3). */
static enum dwc_insn_kind kind_of_two_bytes(const uint8_t *opcode, const struct prefixes *p)
{
	switch (opcode[0]) {
	case 0x01:
		return kind_of_group_7(opcode[1], p);
	case 0x05: case 0x34: case 0x35:
		return DWC_INSN_SYSCALL;
	case 0x07:
		return DWC_INSN_SYSRET;
	case 0x31:
		return DWC_READ_RDTSC;
	case 0xc7:
		return kind_of_group_9(opcode[1], p);
	default:
		return DWC_INSN_OTHER;
	}
}

/* Opcode, ModRM, immediate. */
static unsigned length_of(enum dwc_insn_kind kind, const uint8_t *opcode)
{
	switch (kind) {
	case DWC_INSN_OTHER: case DWC_INSN_LOAD_SS:
		return 0;
	case DWC_READ_RDTSCP: case DWC_READ_RDRAND: case DWC_READ_RDSEED: case DWC_READ_RDPID: case DWC_READ_XGETBV:
		return 3;
	case DWC_READ_RDTSC: case DWC_INSN_SYSCALL: case DWC_INSN_SYSRET:
		return 2;
	case DWC_INSN_INT:
		return opcode[0] == 0xcd ? 2 : 1;
	default:
		return 1;
	}
}

/* The register that an instruction of group 9 writes. */
static void set_operand(struct dwc_insn *insn, uint8_t modrm, const struct prefixes *p, unsigned bits)
{
	insn->reg = (uint8_t)((modrm & 7) | (p->rex & REX_B) << 3);
	if (insn->kind == DWC_READ_RDPID) /* its width is the mode's, in spite of prefixes */
		insn->bytes = bits == 64 ? 8 : 4;
	else
		insn->bytes = p->rex & REX_W ? 8 : p->operand_size != (bits == 16) ? 2 : 4; /* REX.W has precedence */
}

/* Classify an instruction. `code`: DWC_LONGEST_INSTRUCTION bytes. `bits`: 64, 32 or 16, by the code segment. With LOCK none of the
 * known instructions is valid. */
void dwc_decode(const uint8_t *code, unsigned bits, struct dwc_insn *insn)
{
	struct prefixes p = read_prefixes(code, bits);
	uint8_t opcode[BEHIND_PREFIXES] = { 0 };
	unsigned left = DWC_LONGEST_INSTRUCTION - p.count, length;
	enum dwc_insn_kind kind;

	memcpy(opcode, code + p.count, left < sizeof opcode ? left : sizeof opcode);
	if (opcode[0] == TWO_BYTES)
		kind = kind_of_two_bytes(opcode + 1, &p);
	else
		kind = kind_of_one_byte(opcode, &p, bits);
	length = length_of(kind, opcode);
	if (p.lock || length > left)
		kind = DWC_INSN_OTHER;
	*insn = (struct dwc_insn){ .kind = (uint8_t)kind, .prefixes = p.count };
	if (kind != DWC_INSN_OTHER && length)
		insn->length = (uint8_t)(p.count + length);
	if (kind == DWC_READ_RDRAND || kind == DWC_READ_RDSEED || kind == DWC_READ_RDPID)
		set_operand(insn, opcode[2], &p, bits);
}

int dwc_reads_host(const struct dwc_insn *insn)
{
	return insn->kind >= DWC_READ_RDTSC && insn->kind <= DWC_READ_XGETBV;
}
