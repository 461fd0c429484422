/* The points at which a replay is to stop. They are in debug registers only while an element of the recording runs: what a rollback runs
 * again ends as it was logged. Where debug registers do not stop the guest, changes of memory are found at the ends of elements. */
#include "element/stops.h"

#include <linux/kvm.h>

#include "assertion.h"
#include "engine.h"
#include "replica/inputs.h"
#include "replica/replica.h"
#include "vcpu/debug.h"
#include "vcpu/points.h"
#include "vcpu/state.h"

/* `stops`: debug registers stop the guest at all of them, and have room for them. */
void dwc_stops_set(struct dwc_engine *e, const struct dwc_point *points, uint32_t count, int stops)
{
	DWC_ASSERT(e, count <= (stops ? dwc_points_most(e) : DWC_MOST_POINTS));
	for (uint32_t i = 0; i < count; i++)
		e->points.at[i] = points[i];
	e->points.count = count;
	e->points.in_hardware = 0;
	e->points.hits = 0;
	e->replay.stops = stops;
	dwc_points_note_content(&e->replicas[0]);
}

static int job_arm(struct dwc_replica *r)
{
	return dwc_set_stepping(r, 0);
}

/* Before and after a run. The points that it meets are in points.hits then. Returns -errno or 0. */
int dwc_stops_arm(struct dwc_engine *e, int on)
{
	if (!e->points.count)
		return 0;
	if (on) {
		e->points.hits = 0;
		dwc_points_note_content(&e->replicas[0]);
	}
	e->points.in_hardware = on && e->replay.stops;
	return e->replay.stops ? dwc_replica_call(&e->replicas[0], job_arm) : 0;
}

/* Whether memory that is watched is another one than before the run, if only that tells. */
int dwc_stops_changed(struct dwc_engine *e)
{
	uint32_t hits = e->points.count && !e->replay.stops ? dwc_points_at(&e->replicas[0]) : 0;

	for (uint32_t i = 0; i < e->points.count; i++)
		if (e->points.at[i].kind == DWC_POINT_EXECUTE)
			hits &= ~(1u << i);
	e->points.hits |= hits;
	return hits != 0;
}

/* Whether the VM stands at an inner exit, which is not answered yet. */
int dwc_stands_at_exit(const struct dwc_engine *e)
{
	const struct dwc_replica *a = &e->replicas[0];

	return a->stage != DWC_STAGE_AT_COMMITTED && a->inner.stopped &&
	       (a->exit.reason == KVM_EXIT_IO || a->exit.reason == KVM_EXIT_MMIO);
}

/* Whether the VM stands before an instruction of which nothing is done yet: neither an interrupt nor the rest of another one comes first. */
int dwc_is_fresh(const struct dwc_engine *e)
{
	const struct dwc_replica *a = &e->replicas[0];
	const struct dwc_inputs *in = &e->inputs;

	if (a->stage != DWC_STAGE_AT_COMMITTED)
		return !dwc_stands_at_exit(e);
	return !e->has_pending_io && in->vector < 0 && !in->nmi && !in->settles && in->answer == DWC_ANSWER_IO;
}

/* Whether it stands before an instruction at which there is a point. */
int dwc_stands_at_point(const struct dwc_engine *e)
{
	uint64_t linear = dwc_linear_rip(&e->replicas[0].state);

	for (uint32_t i = 0; i < e->points.count; i++)
		if (e->points.at[i].kind == DWC_POINT_EXECUTE && e->points.at[i].linear == linear)
			return dwc_is_fresh(e);
	return 0;
}
