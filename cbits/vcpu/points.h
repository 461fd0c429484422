/* Points at which a debugger wants the guest to stop: instructions, and memory that is accessed. */
#ifndef DWC_VCPU_POINTS_H
#define DWC_VCPU_POINTS_H

#include <stdint.h>

#define DWC_MOST_POINTS 32
#define DWC_DEBUG_REGISTERS 4
#define DWC_POINT_BYTES 8 /* of memory that one point watches, at most */

struct dwc_engine;
struct dwc_replica;
struct kvm_guest_debug;

/* By their number in DR7 (SDM vol. 3B 18.2.4). */
enum dwc_point_kind { DWC_POINT_EXECUTE = 0, DWC_POINT_WRITE = 1, DWC_POINT_ACCESS = 3 };

struct dwc_point {
	uint64_t linear;
	uint8_t kind, bytes; /* an enum dwc_point_kind; bytes of memory */
	uint8_t content[DWC_POINT_BYTES]; /* of that memory when the point was set */
};

struct dwc_points {
	struct dwc_point at[DWC_MOST_POINTS];
	uint32_t count;
	int in_hardware; /* debug registers stop the guest there; else only single steps find them */
	uint32_t hits;   /* points that were met since the caller looked, a bit each */
};

unsigned dwc_points_most(const struct dwc_engine *e);
void dwc_points_arm(const struct dwc_engine *e, struct kvm_guest_debug *debug, int data_only);
uint32_t dwc_points_in_dr6(const struct dwc_engine *e, uint64_t dr6);
uint32_t dwc_points_at(struct dwc_replica *r);
void dwc_points_note_content(struct dwc_replica *r);

#endif
