/* Learned sites: instructions that read a value of the host, replaced by a trap. */
#ifndef DWC_SITES_SITES_H
#define DWC_SITES_SITES_H

#include <stdint.h>

#include "vcpu/insn.h"

#define DWC_MAX_SITES 256
#define DWC_TIME_PORT 0xf5 /* a port that no PC uses */

enum dwc_user_trap { DWC_USER_TRAP_NONE, DWC_USER_TRAP_ICEBP, DWC_USER_TRAP_SYSENTER };

struct dwc_engine;

/* An instruction that was replaced by a trap. */
struct dwc_site {
	uint64_t gpa;
	struct dwc_insn read;
	uint8_t user;
	uint8_t original[DWC_LONGEST_INSTRUCTION]; /* its bytes */
};

struct dwc_sites {
	uint32_t count;
	int in_user;               /* how many are in ring 3, and need exits by debug exceptions */
	struct dwc_site site[DWC_MAX_SITES];
	uint64_t reads;
};

int dwc_can_learn_site(struct dwc_engine *e);
int dwc_learn_site(struct dwc_engine *e);
int dwc_set_user_traps(struct dwc_engine *e, int wanted);
unsigned dwc_site_original(const struct dwc_engine *e, uint32_t number, uint64_t *gpa, uint8_t *out);
extern const uint8_t dwc_port_trap[], dwc_sysenter_trap[]; /* DWC_LONGEST_INSTRUCTION bytes */
int dwc_site_answer(struct dwc_engine *e);
int dwc_pass_host_read(struct dwc_engine *e);
void dwc_reflect_debug_exception(struct dwc_engine *e);
int dwc_reflect_undefined(struct dwc_engine *e);

#endif
