/* Points at which a debugger wants the guest to stop: instructions, and memory that is accessed. */
#include "vcpu/points.h"

#include <linux/kvm.h>
#include <string.h>

#include "engine.h"
#include "replica/replica.h"
#include "vcpu/state.h"
#include "vcpu/translate.h"

/* DR7 (SDM vol. 3B 18.2.4): a bit that enables a breakpoint, and its kind and length. */
#define DR7_ENABLE(n) (2ull << 2 * (n))
#define DR7_KIND(n) (16 + 4 * (n))
#define DR7_LENGTH(n) (18 + 4 * (n))

/* The first debug register of them. Alignment uses DR0 where a progress counter ends elements (align.c), and a replay does in an element that
 * the VMM has ended. */
static unsigned first_register(const struct dwc_engine *e)
{
	return e->config.strategy == DWC_REPLAY ? e->replay.expected.ended == DWC_ENDED_AT_POINT : e->config.counting != 0;
}

/* How many debug registers have. */
unsigned dwc_points_most(const struct dwc_engine *e)
{
	return DWC_DEBUG_REGISTERS - first_register(e);
}

static uint64_t length_code(unsigned bytes)
{
	return bytes == 8 ? 2 : bytes - 1;
}

/* Put them in debug registers. data_only: during a single step, which an instruction's own breakpoint would stop before it begins. */
void dwc_points_arm(const struct dwc_engine *e, struct kvm_guest_debug *debug, int data_only)
{
	const struct dwc_points *points = &e->points;

	for (uint32_t i = 0; points->in_hardware && i < points->count; i++) {
		const struct dwc_point *point = &points->at[i];
		unsigned n = first_register(e) + i;

		if (data_only && point->kind == DWC_POINT_EXECUTE)
			continue;
		debug->control |= KVM_GUESTDBG_USE_HW_BP;
		debug->arch.debugreg[n] = point->linear;
		debug->arch.debugreg[7] |= DR7_ENABLE(n) | (uint64_t)point->kind << DR7_KIND(n) |
					   length_code(point->bytes) << DR7_LENGTH(n);
	}
}

/* Those that a debug exception tells of. DR6 can also have bits of breakpoints that are not enabled (18.2.3). */
uint32_t dwc_points_in_dr6(const struct dwc_engine *e, uint64_t dr6)
{
	if (!e->points.in_hardware)
		return 0;
	return (uint32_t)(dr6 >> first_register(e)) & ((1u << e->points.count) - 1) & ((1u << dwc_points_most(e)) - 1);
}

static void read_content(struct dwc_replica *r, const struct dwc_point *point, uint8_t *content)
{
	dwc_read_code(r, point->linear, content, point->bytes);
}

/* Those that a replica has met with the last instruction, by its next one and by what is in memory now. Debug registers do not tell
 * that of single steps on every host. */
uint32_t dwc_points_at(struct dwc_replica *r)
{
	const struct dwc_points *points = &r->engine->points;
	uint64_t linear = dwc_linear_rip(&r->state);
	uint8_t content[DWC_POINT_BYTES];
	uint32_t hits = 0;

	for (uint32_t i = 0; i < points->count; i++) {
		const struct dwc_point *point = &points->at[i];

		if (point->kind == DWC_POINT_EXECUTE) {
			hits |= (uint32_t)(point->linear == linear) << i;
			continue;
		}
		read_content(r, point, content);
		hits |= (uint32_t)(memcmp(content, point->content, point->bytes) != 0) << i;
	}
	return hits;
}

/* From what memory is now on, changes count. */
void dwc_points_note_content(struct dwc_replica *r)
{
	struct dwc_points *points = &r->engine->points;

	for (uint32_t i = 0; i < points->count; i++)
		if (points->at[i].kind != DWC_POINT_EXECUTE)
			read_content(r, &points->at[i], points->at[i].content);
}
