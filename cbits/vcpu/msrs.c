/* MSRs that the VMM answers, by exits of RDMSR and WRMSR (api.rst: KVM_CAP_X86_USER_SPACE_MSR, KVM_X86_SET_MSR_FILTER):
 * TSC_AUX, which KVM refuses if RDTSCP is hidden, and MSRs for which the host would give changing values of its own. Such an exit ends
 * an element as an I/O exit does: the value written is compared, and the answer is an input of the next element. */
#include "vcpu/msrs.h"

#include <linux/kvm.h>
#include <string.h>

#include "engine.h"
#include "host.h"
#include "replica/inputs.h"
#include "vcpu/exit.h"
#include "vcpu/tsc.h"

#define LONGEST 128 /* MSRs in a range */

enum kind {
	TIME,    /* what RDTSC reads; writes have no effect, since the guest clock goes on */
	AUX,     /* 32 bits that are kept; no visible instruction reads them */
	COUNTER, /* stays 0 and cannot be started, as in KVM without a virtual PMU */
	ABSENT,  /* no visible CPUID leaf announces it: #GP */
};

static const struct served {
	uint32_t first, count;
	enum kind kind;
} served[] = {
	{ 0x10, 1, TIME }, /* must be first: under `off` it is left to KVM */
	{ 0x11, 2, ABSENT }, /* MSR_KVM_WALL_CLOCK, MSR_KVM_SYSTEM_TIME */
	{ 0x34, 1, COUNTER }, /* SMI_COUNT */
	{ 0xc1, 8, COUNTER }, /* IA32_PMCx */
	{ 0xe7, 2, ABSENT }, /* IA32_MPERF, IA32_APERF */
	{ 0x186, 8, COUNTER }, /* IA32_PERFEVTSELx */
	{ 0x19c, 1, ABSENT }, /* IA32_THERM_STATUS */
	{ 0x1b1, 1, ABSENT }, /* IA32_PACKAGE_THERM_STATUS */
	{ 0x3f8, 7, ABSENT }, /* residencies */
	{ 0x606, 0x5b, ABSENT }, /* energy, residencies, IA32_PPERF */
	{ 0xc00000e7, 2, ABSENT }, /* MPERF and APERF, for reading */
	{ 0xc0000103, 1, AUX },
	{ 0xc0010000, 8, COUNTER }, /* PERF_CTLx and PERF_CTRx of AMD, */
	{ 0xc0010200, 12, COUNTER }, /* of its later families, */
	{ 0xc0010299, 3, ABSENT }, /* energy */
	{ 0x4b564d00, 9, ABSENT }, /* MSR_KVM_WALL_CLOCK_NEW and on */
};
#define RANGES (sizeof served / sizeof served[0])
_Static_assert(RANGES <= KVM_MSR_FILTER_MAX_RANGES, "KVM takes so many ranges");

/* Let accesses to them exit in a VM; with `time`, also those to the TSC. */
int dwc_msrs_filter(int vm_fd, int time)
{
	static uint8_t none[LONGEST / 8];
	struct kvm_enable_cap exits = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { KVM_MSR_EXIT_REASON_FILTER } };
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	long err;

	for (unsigned i = !time; i < RANGES; i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){ .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
								  .base = served[i].first,
								  .nmsrs = served[i].count,
								  .bitmap = none };
	if ((err = dwc_ioctl(vm_fd, KVM_ENABLE_CAP, &exits)) < 0)
		return (int)err;
	return (int)dwc_ioctl(vm_fd, KVM_X86_SET_MSR_FILTER, &filter);
}

static enum kind kind_of(uint32_t index)
{
	for (unsigned i = 0; i < RANGES; i++)
		if (index - served[i].first < served[i].count)
			return served[i].kind;
	return ABSENT;
}

/* Answer the committed exit. */
void dwc_msr_serve(struct dwc_engine *e)
{
	const struct dwc_exit *x = &e->exit;
	enum kind kind = kind_of((uint32_t)x->gpa);
	uint64_t value = 0;

	if (kind == ABSENT) {
		e->inputs.answer = DWC_ANSWER_REFUSED;
		return;
	}
	if (kind == AUX && x->is_write)
		memcpy(&e->tsc.aux, x->data, sizeof e->tsc.aux);
	if (x->is_write)
		return;
	if (kind == AUX)
		value = e->tsc.aux;
	else if (kind == TIME)
		value = e->config.tsc_ratio ? e->inputs.tsc : dwc_tsc_next(e);
	memcpy(e->inputs.io_data, &value, sizeof value);
}
