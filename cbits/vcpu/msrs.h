/* MSRs that the VMM answers. */
#ifndef DWC_VCPU_MSRS_H
#define DWC_VCPU_MSRS_H

struct dwc_engine;

int dwc_msrs_filter(int vm_fd, int time);
void dwc_msr_serve(struct dwc_engine *e);

#endif
