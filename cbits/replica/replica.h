/* One replica: its VM, the thread that owns its vCPU, and KVM_RUN up to an exit. */
#ifndef DWC_REPLICA_REPLICA_H
#define DWC_REPLICA_REPLICA_H

#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "account.h"
#include "ram.h"
#include "replica/inner.h"
#include "replica/limit.h"
#include "vcpu/counter.h"
#include "vcpu/exit.h"
#include "vcpu/state.h"

struct dwc_engine;
struct chase;

/* Where a replica is in the element. */
enum dwc_stage {
	DWC_STAGE_AT_COMMITTED, /* at the last committed state */
	DWC_STAGE_HAS_INPUTS,   /* the element has begun, on a visit or by single steps: its inputs are given */
	DWC_STAGE_RAN,          /* somewhere in the element */
	DWC_STAGE_HARVESTED,    /* the same, and its dirty logs have been read since it ran */
};

struct dwc_slot {
	uint64_t gpa, size;
	uint64_t *dirty; /* bitmap as KVM_GET_DIRTY_LOG fills it */
	int used;        /* a page in it was written, by the guest or the VMM */
};

/* A number that one thread increments and another waits for. */
struct dwc_turn {
	atomic_uint number;
	atomic_int sleeping; /* whether the waiting thread sleeps: only then waking it needs a system call */
};

/* What a thread has once, however many vCPUs it owns. */
struct dwc_own {
	timer_t timer; /* of kicks */
	int has_timer;
	uint64_t next_kick_ns; /* after that one they are periodic */
	uint64_t tsc_margin;   /* by how much of the host's TSC the guest is left before a tick of the frozen TSC */
	struct dwc_counter counter;
};

struct dwc_replica {
	struct dwc_engine *engine;
	int index, vm_fd, vcpu_fd, cpu; /* cpu: pinned to, or -1 */
	struct kvm_run *run;
	uint8_t *ram; /* hva of gpa 0 */
	struct dwc_slot slots[DWC_MOST_SLOTS];
	long faults; /* page faults of its thread, when the dirty logs were last read on it */
	struct dwc_state state; /* as of the last exit */
	struct dwc_exit exit;
	struct dwc_inner inner;
	uint64_t ended_ns, started_ns, limit_ns;
	uint64_t wait_ns; /* its run is cut after that if the guest waits in a loop, where both replicas can meet */
	uint32_t stretch, stretch_most; /* by how much the limit was made longer in this run, and may be at most (replica/limit.c) */
	struct dwc_seen seen;
	int may_be_cut; /* its run can end before it has come to an end, if the caller asks for that */
	enum dwc_stage stage;
	/* progress: events since the counter was armed, up to the last exit, and at how many the run ends; most_ns: time after which a
	 * slice ends; 0: no limit */
	uint64_t count, budget, advance, most_ns;
	struct chase *chase; /* align.c */
	/* the frozen TSC: the host's tick and the guest's value for which the offset is set, the host's TSC at which that tick ends, and when
	 * the guest must be left for that (UINT64_MAX: it need not) */
	uint64_t tsc_tick, tsc_value, tsc_offset, tsc_tick_ends, leave_ns;
	int tsc_runs; /* under `off`: the offset has been set */
	int tick_crossed; /* in this element */
	/* the thread that owns this vCPU, if it is not the caller's */
	pthread_t thread;
	int has_thread;
	int tid; /* of the thread that owns it, 0: none */
	int (*job)(struct dwc_replica *);
	int job_result;
	int at_once; /* the job runs while the caller does something else */
	enum dwc_activity caller_at; /* else: what the caller is at */
	struct dwc_turn job_posted, job_done;
	struct dwc_own own, *on; /* on: those of the thread that owns its vCPU. Two replicas on one thread share replica A's */
};

int dwc_install_kick(void);
int dwc_replica_pin(struct dwc_replica *r);
int dwc_replica_start(struct dwc_replica *r);
void dwc_replica_stop(struct dwc_replica *r);
int dwc_replica_call(struct dwc_replica *r, int (*job)(struct dwc_replica *));
int dwc_replica_call_both(struct dwc_engine *e, int (*job)(struct dwc_replica *));
void dwc_replica_post(struct dwc_replica *r, int (*job)(struct dwc_replica *));
int dwc_replica_wait(struct dwc_replica *r);
int dwc_replica_run(struct dwc_replica *r, uint64_t limit_ns);
int dwc_replica_finish(struct dwc_replica *r);
int dwc_replica_complete(struct dwc_replica *r);
int dwc_replica_read_state(struct dwc_replica *r);

#endif
