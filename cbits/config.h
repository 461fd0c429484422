/* What an engine is made of and asked to do. Python fills it (dwcvmm/core); dwc_engine_init() checks it. */
#ifndef DWC_CONFIG_H
#define DWC_CONFIG_H

#include <linux/kvm.h>
#include <stdint.h>

#include "vcpu/state.h"

enum dwc_strategy { DWC_OFF, DWC_SEQUENTIAL, DWC_PARALLEL, DWC_IN_PLACE, DWC_STRATEGIES };

/* How a rollback makes KVM forget translations. */
enum dwc_flush { DWC_FLUSH_PGE, DWC_FLUSH_MEMSLOT };

enum dwc_cache_flush { DWC_CACHE_KEPT, DWC_CACHE_DIRTY, DWC_CACHE_ALL }; /* in place, before e2 */

/* Made, and freed behind the engine, by the caller. In place both replicas name the same VM, and have RAM each. */
struct dwc_vm {
	int vm_fd, vcpu_fd, cpu; /* cpu: its thread is bound to, or -1 */
	struct kvm_run *run;
	uint8_t *ram; /* hva of gpa 0: memory slot 0 from there on */
};

struct dwc_config {
	enum dwc_strategy strategy;
	struct dwc_vm vms[2];    /* under `off` the first */
	uint64_t ram_bytes;      /* whole pages */
	uint8_t *checkpoint_ram; /* NULL under `off` */
	/* of the host */
	int flush;               /* enum dwc_flush */
	int out_rip_after;       /* RIP at the exit of an OUT stands behind it */
	int exact_windows;       /* an interrupt window ends an element at an architectural point */
	int user_trap;           /* enum dwc_user_trap */
	int icebp_rip_after;     /* where RIP stands at the debug exit of an ICEBP */
	int has_xcrs;
	uint32_t msr_count, msr_index[DWC_MAX_MSRS]; /* that are saved and compared */
	int spin_turns;          /* how long a thread looks for work before it sleeps: 0 on one CPU */
	/* time */
	int follows_host_clock;  /* the guest clock does, from dwc_engine_start() on */
	uint64_t clock_divisor;  /* guest nanoseconds are nanoseconds of e1 divided by it */
	uint64_t patience_ns;    /* how long an element may keep a due interrupt waiting */
	uint64_t hang_ns;        /* how much longer than the other a replica may take */
	uint64_t tsc_ratio, tsc_host_khz; /* where the host scales the guest's TSC: KVM's ratio; 0: it runs as the host has it */
	uint32_t tsc_bits;       /* with so many fraction bits */
	/* slices, by a progress counter: a perf event, and how many come in a millisecond of guest time */
	int counting;            /* there is one */
	uint32_t counter_type;
	uint64_t counter_config, events_per_ms, slice_ns;
	/* how often what is done */
	uint32_t checkpoint_every; /* elements, DWC_LOG_ELEMENTS at most */
	uint64_t memory_every_ns;  /* how much guest time memory may go uncompared (docs/decisions/0003) */
	uint32_t idle_limit;       /* checkpoints that an unchanged page stays writable for */
	uint64_t scrub_bytes_per_s; /* 0: there is no scrubber */
	/* in place */
	int cache_flush;         /* enum dwc_cache_flush */
	uint8_t *evict;          /* room for twice the last-level cache: reading it leaves nothing else there */
	uint64_t evict_bytes;
};

#endif
