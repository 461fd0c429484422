/* The configuration of an engine. Python fills it in (dwcvmm/core); dwc_engine_init() checks it. */
#ifndef DWC_CONFIG_H
#define DWC_CONFIG_H

#include <linux/kvm.h>
#include <stdint.h>

#include "vcpu/state.h"

enum dwc_strategy { DWC_OFF, DWC_SEQUENTIAL, DWC_PARALLEL, DWC_IN_PLACE, DWC_REPLAY, DWC_STRATEGIES };

/* How a rollback empties the guest's TLB. */
enum dwc_tlb_flush { DWC_TLB_FLUSH_PGE, DWC_TLB_FLUSH_MEMSLOT };

enum dwc_cache_flush { DWC_CACHE_KEPT, DWC_CACHE_DIRTY, DWC_CACHE_ALL }; /* in place, before e2 */

/* Made by the caller, and freed by the caller after the engine. In place both replicas have the same VM, but RAM of their own. */
struct dwc_vm {
	int vm_fd, vcpu_fd, cpu; /* cpu: the CPU that its thread is bound to, or -1 */
	struct kvm_run *run;
	uint8_t *ram; /* hva of gpa 0, where memory slot 0 starts */
};

struct dwc_config {
	enum dwc_strategy strategy;
	struct dwc_vm vms[2];    /* under `off` only the first */
	uint64_t ram_bytes;      /* whole pages */
	uint8_t *checkpoint_ram; /* NULL under `off` */
	/* what the host can do */
	int tlb_flush;               /* enum dwc_tlb_flush */
	int out_rip_after;       /* at the exit of an OUT, RIP is past it */
	int exact_windows;       /* an interrupt window ends an element at an architectural point */
	int user_trap;           /* enum dwc_user_trap */
	int icebp_rip_after;     /* at the debug exception of an ICEBP, RIP is past it */
	int has_xcrs;
	uint32_t msr_count, msr_index[DWC_MAX_MSRS]; /* those that are saved and compared */
	int spin_turns;          /* how long a thread spins before it sleeps: 0 on one CPU */
	/* time */
	int follows_host_clock;  /* from dwc_engine_start() on */
	uint64_t clock_divisor;  /* the guest clock moves by the nanoseconds of e1 divided by it */
	uint64_t patience_ns;    /* how long an element may keep a due interrupt waiting */
	uint64_t hang_ns;        /* how much longer than the other replica one may take */
	uint64_t tsc_ratio, tsc_host_khz; /* KVM's ratio if the guest's TSC is scaled; 0: it is not */
	uint32_t tsc_bits;       /* number of fraction bits of the ratio */
	/* slices: the progress counter's perf event, and how many events there are in a millisecond of guest time */
	int counting;            /* there is a progress counter */
	uint32_t counter_type;
	uint64_t counter_config, events_per_ms, slice_ns;
	int end_at_io;             /* every exit ends an element, as in 2017: there are no inner exits */
	/* intervals */
	uint32_t checkpoint_every; /* elements, DWC_LOG_ELEMENTS at most */
	uint64_t memory_every_ns;  /* after how much guest time memory is compared (docs/decisions/0003) */
	uint32_t idle_limit, idle_most; /* checkpoints that an unchanged page stays writable for: the first time, and at most */
	uint64_t scrub_bytes_per_s; /* 0: no scrubber */
	/* in place */
	int cache_flush;         /* enum dwc_cache_flush */
	uint8_t *evict;          /* twice the size of the last-level cache: reading it replaces the cache's content */
	uint64_t evict_bytes;
};

#endif
