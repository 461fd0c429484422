/* Learned sites: instructions that read a value of the host, replaced by a trap. */
#ifndef DWC_SITES_SITES_H
#define DWC_SITES_SITES_H

#include <stdint.h>

enum dwc_user_trap { DWC_USER_TRAP_NONE, DWC_USER_TRAP_ICEBP, DWC_USER_TRAP_SYSENTER };

struct dwc_engine;

int dwc_can_learn_site(struct dwc_engine *e);
int dwc_learn_site(struct dwc_engine *e);
int dwc_sites_are_hot(const struct dwc_engine *e);
int dwc_release_sites(struct dwc_engine *e);
int dwc_set_user_traps(struct dwc_engine *e, int wanted);
unsigned dwc_site_original(const struct dwc_engine *e, uint32_t number, uint64_t *gpa, uint8_t *out);
extern const uint8_t dwc_port_trap[], dwc_sysenter_trap[]; /* DWC_LONGEST_INSTRUCTION bytes */
int dwc_site_answer(struct dwc_engine *e);
int dwc_pass_host_read(struct dwc_engine *e);
void dwc_reflect_debug_exception(struct dwc_engine *e);
int dwc_reflect_undefined(struct dwc_engine *e);

#endif
