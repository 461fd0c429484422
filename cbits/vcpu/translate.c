/* Finds the guest physical address of a linear one by a walk of the guest's page tables (SDM vol. 3A, chapter 4). KVM_TRANSLATE
 * will not do: it translates as ring 0 does, for which CR4.SMAP hides the pages of ring 3. */
#include "vcpu/translate.h"

#include <string.h>

#include "engine.h"
#include "host.h"
#include "ram.h"
#include "replica/replica.h"
#include "vcpu/insn.h"
#include "vcpu/state.h"

#define CR0_PG (1ull << 31)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_LA57 (1ull << 12)
#define EFER_LMA (1ull << 10)
#define PRESENT 1ull
#define PAGE_SIZE (1ull << 7)
#define ADDRESS 0x000ffffffffff000ull
#define PDPT_PAE (~0x1full & 0xffffffff)

static int entry_at(struct dwc_replica *r, uint64_t gpa, unsigned bytes, uint64_t *entry)
{
	*entry = 0;
	if (!dwc_is_ram(r->engine->config.ram_bytes, gpa, bytes)) /* an entry cannot cross the end of RAM: both are aligned */
		return 0;
	memcpy(entry, r->ram + gpa, bytes);
	return (*entry & PRESENT) != 0;
}

/* Two levels of 32-bit entries (4.3); 4 MiB pages have upper address bits in bits 13 to 20. */
static int walk_32_bit(struct dwc_replica *r, const struct kvm_sregs *s, uint64_t linear, uint64_t *gpa)
{
	uint64_t entry;

	if (!entry_at(r, (s->cr3 & 0xfffff000) + (linear >> 22 & 0x3ff) * 4, 4, &entry))
		return 0;
	if (s->cr4 & CR4_PSE && entry & PAGE_SIZE) {
		*gpa = (entry & 0xffc00000) | (entry & 0x1fe000) << 19 | (linear & 0x3fffff);
		return 1;
	}
	if (!entry_at(r, (entry & 0xfffff000) + (linear >> 12 & 0x3ff) * 4, 4, &entry))
		return 0;
	*gpa = (entry & 0xfffff000) | (linear & 0xfff);
	return 1;
}

/* Levels of 512 entries (4.4, 4.5), the root's table at `table`; large pages at the second and third. */
static int walk_64_bit(struct dwc_replica *r, uint64_t table, int levels, uint64_t linear, uint64_t *gpa)
{
	uint64_t entry, offsets = 0;

	for (int level = levels; level; level--) {
		unsigned shift = 12 + 9 * (unsigned)(level - 1);

		if (!entry_at(r, table + (linear >> shift & 0x1ff) * 8, 8, &entry))
			return 0;
		offsets = (1ull << shift) - 1;
		table = entry & ADDRESS & ~offsets;
		if (level == 1 || (level <= 3 && entry & PAGE_SIZE))
			break;
		table = entry & ADDRESS;
	}
	*gpa = table | (linear & offsets);
	return 1;
}

/* Translate by the registers that KVM has now. Returns 0 if no RAM is mapped there. Access rights are ignored. */
int dwc_translate(struct dwc_replica *r, uint64_t linear, uint64_t *gpa)
{
	const struct kvm_sregs *s = &r->run->s.regs.sregs;
	int found = 1;

	if (!r->engine->protects && dwc_state_prime(r)) /* under `off` KVM_RUN does not fill the run page */
		return 0;
	if (!(s->cr0 & CR0_PG))
		*gpa = linear & 0xffffffff;
	else if (s->efer & EFER_LMA)
		found = walk_64_bit(r, s->cr3 & ADDRESS, s->cr4 & CR4_LA57 ? 5 : 4, linear, gpa);
	else if (s->cr4 & CR4_PAE) /* the four entries of its third level have no page size bit */
		found = entry_at(r, (s->cr3 & PDPT_PAE) + (linear >> 30 & 3) * 8, 8, gpa) &&
			walk_64_bit(r, *gpa & ADDRESS, 2, linear, gpa);
	else
		found = walk_32_bit(r, s, linear, gpa);
	return found && dwc_is_ram(r->engine->config.ram_bytes, *gpa, 1);
}

/* Read `length` bytes of code at a linear address; zeros from the first unmapped page on. */
void dwc_read_code(struct dwc_replica *r, uint64_t linear, uint8_t *code, unsigned length)
{
	unsigned left = length;
	uint64_t gpa;

	memset(code, 0, length);
	while (left && dwc_translate(r, linear, &gpa)) { /* one walk for each page, not for each byte */
		uint64_t in_page = DWC_PAGE - gpa % DWC_PAGE;
		unsigned count = left < in_page ? left : (unsigned)in_page;

		memcpy(code, r->ram + gpa, count);
		code += count;
		linear += count;
		left -= count;
	}
}

/* The instruction at a linear address. */
void dwc_insn_at(struct dwc_replica *r, uint64_t linear, struct dwc_insn *insn)
{
	uint8_t code[DWC_LONGEST_INSTRUCTION];

	dwc_read_code(r, linear, code, sizeof code);
	dwc_decode(code, dwc_code_bits(&r->run->s.regs.sregs), insn);
}
