/* The mechanism of double execution: two replicas, a checkpoint, and the loop that runs elements.
 * Functions return 0 or a positive status, and -errno when the host refused something. */
#ifndef DWC_CORE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* cpu_set_t */
#endif
#define DWC_CORE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "devices.h"

#define DWC_PAGE 4096u
#define DWC_RFLAGS_RF (1ull << 16)
#define DWC_MAX_SLOTS 4
#define DWC_MAX_MSRS 64
#define DWC_MAX_DIFFS 64
#define DWC_MAX_SITES 256
#define DWC_TIME_PORT 0xf5 /* nothing on a PC lives here */
#define DWC_IO_BYTES 4096
#define DWC_LOG_ELEMENTS 32
#define DWC_HISTOGRAM 24
#define DWC_LONGEST_INSTRUCTION 15
#define DWC_LONGEST_READ 6 /* of dwc_host_read_at() */
#define DWC_LEAST_BUDGET 1000 /* where counting is slow (an emulator), a slice is longer than asked for */
#define DWC_OVERFLOW_SIGNAL (SIGRTMIN + 5)

/* What two replicas can disagree about; a bit each, so that one element can name several. */
enum dwc_diff {
	DWC_DIFF_EXIT = 1 << 0,
	DWC_DIFF_REGS = 1 << 1,
	DWC_DIFF_SREGS = 1 << 2,
	DWC_DIFF_EVENTS = 1 << 3,
	DWC_DIFF_XSAVE = 1 << 4,
	DWC_DIFF_MSRS = 1 << 5,
	DWC_DIFF_DEBUGREGS = 1 << 6,
	DWC_DIFF_XCRS = 1 << 7,
	DWC_DIFF_MEMORY = 1 << 8,
	DWC_DIFF_HANG = 1 << 9, /* one replica ended, the other did not */
};

/* Why dwc_engine_run() returned to Python. */
enum dwc_status {
	DWC_EXIT_PYTHON = 1, /* a committed exit that no device in C serves */
	DWC_CONSOLE,         /* the UART has output to drain */
	DWC_DIVERGED,        /* e1 and e2 differ: see dwc_engine.diff */
	DWC_SLICE_UP,        /* neither replica reached a natural end in time: nothing is committed */
	DWC_STOPPED,         /* stop was requested; the element under way is not committed */
	DWC_IDLE,            /* HLT, and no interrupt can come from a device in C */
	DWC_ELEMENT_LIMIT,   /* the number of elements asked for is committed */
	DWC_ATTENTION,       /* another thread has something for the devices */
	DWC_SLICE_END,       /* of one replica: its counter kicked it out (never comes to Python) */
	DWC_UNREPEATABLE,    /* a rollback cannot reach the last committed state: an element of the log read time */
	DWC_DAMAGED,         /* a rollback would believe a checkpoint that is not what was saved */
	DWC_REPAIRED,        /* the scrubber has mended a page: repair_gpa, repair_copy */
	DWC_WAITING,         /* windows are inexact here, and an interrupt waited too long for a natural end */
	DWC_ELEMENT_START,   /* a visit: the inputs are chosen, neither replica has started */
	DWC_ELEMENT_END,     /* a visit: both replicas have ended, nothing is compared */
	DWC_BETWEEN_RUNS,    /* in place: the VM is rewound, and e2 starts with the next call (pause_between) */
};

/* What the exit is answered by. */
enum dwc_answer {
	DWC_ANSWER_IO,        /* what the device said, if it was asked */
	DWC_ANSWER_SITE_PORT, /* a site's IN: the registers that its instruction writes */
	DWC_ANSWER_SITE_TRAP, /* a site in ring 3, or an instruction that is not executed: the same, and on behind it */
	DWC_ANSWER_DEBUG,     /* a debug exception that is the guest's own */
	DWC_ANSWER_UNDEFINED, /* the same of an invalid opcode */
	DWC_ANSWER_REFUSED,   /* there is no such MSR: #GP */
};

enum dwc_user_trap { DWC_USER_TRAP_NONE, DWC_USER_TRAP_ICEBP, DWC_USER_TRAP_SYSENTER }; /* sites.c */
enum dwc_strategy { DWC_OFF, DWC_SEQUENTIAL, DWC_PARALLEL, DWC_IN_PLACE };
enum dwc_copy { DWC_COPY_A, DWC_COPY_B, DWC_COPY_CHECKPOINT, DWC_COPIES }; /* of RAM */
enum dwc_flush { DWC_FLUSH_PGE, DWC_FLUSH_MEMSLOT };
enum dwc_cache_flush { DWC_CACHE_KEPT, DWC_CACHE_DIRTY, DWC_CACHE_ALL }; /* in place, before e2 */

struct dwc_msrs {
	uint32_t count, pad;
	struct kvm_msr_entry entries[DWC_MAX_MSRS];
};

/* Every piece of vCPU state that is saved, compared and restored (docs/state-table.md). The first three
 * groups come with each KVM_RUN, the others cost an ioctl each and are read at checkpoints only. */
struct dwc_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_xcrs xcrs;
	struct kvm_xsave xsave;
	struct dwc_msrs msrs;
};

/* An exit as it is compared: nothing host-specific (data_offset, flags) is in it. */
struct dwc_exit {
	uint32_t reason;  /* KVM_EXIT_* */
	uint8_t is_write; /* guest to device */
	uint8_t size;     /* bytes an item */
	uint16_t port;
	uint32_t count; /* items (string I/O) */
	uint64_t gpa;   /* MMIO; the index of an MSR */
	uint64_t info;  /* debug: DR6; internal error: suberror; fail entry: hardware reason */
	uint8_t data[DWC_IO_BYTES];
};

/* A page in either dirty log, and what its comparison found. */
struct dwc_dirty {
	uint32_t page; /* gpa / DWC_PAGE */
	uint8_t differs, changed;
};

struct dwc_slot {
	uint64_t gpa, size;
	uint64_t *dirty; /* bitmap as KVM_GET_DIRTY_LOG fills it */
	uint64_t *cold;  /* replica 0 only: pages to write-protect again at this commit */
};

/* What alignment has learned of the counters, in sixteenths of an event: how much more replica B counts up to the same point,
 * how far single cases are from that, and how late an overflow ends a run. */
struct dwc_counter_habits {
	int64_t bias, spread, skid;
};

/* A number that one thread raises and another waits for. */
struct dwc_turn {
	atomic_uint number;
	atomic_int sleeping; /* the one who waits: only then is a system call needed to wake it */
};

struct dwc_engine;
struct chase;

struct dwc_replica {
	struct dwc_engine *engine;
	int index, vm_fd, vcpu_fd, cpu; /* cpu: pinned to, or -1 */
	struct kvm_run *run;
	uint8_t *ram; /* hva of gpa 0 */
	struct dwc_slot slots[DWC_MAX_SLOTS];
	struct dwc_state state; /* as of the last exit */
	struct dwc_exit exit;
	uint64_t ended_ns, started_ns, limit_ns;
	int midway;    /* its element has begun, on a visit: it has its inputs */
	int harvested; /* its dirty logs have been read since */
	/* the progress counter; counts are since it was armed */
	int counter_fd;
	uint64_t budget, count_base, move, most_ns; /* most_ns: a slice ends by time as well; 0: it does not */
	struct chase *chase; /* align.c */
	/* the frozen TSC: host tick and guest value that the offset is set for */
	uint64_t tsc_tick, tsc_value, tsc_usual_ns, tsc_offset;
	int tsc_runs; /* under `off`: it has been set once */
	int tick_crossed; /* in this element */
	/* the thread that owns this vCPU, where it is not the caller's */
	pthread_t thread;
	int has_thread;
	int (*job)(struct dwc_replica *);
	int job_result;
	struct dwc_turn job_posted, job_done;
	timer_t timer;
	int has_timer;
	cpu_set_t cpus_before; /* of a thread that is the caller's: given back at the end */
	sigset_t signals_before;
};

/* An instruction that reads what is the host's (insn.c). */
enum dwc_read_kind {
	DWC_READ_NOTHING,
	DWC_READ_RDTSC,
	DWC_READ_RDTSCP,
	DWC_READ_RDRAND,
	DWC_READ_RDSEED,
	DWC_READ_RDPID,
	DWC_READ_XGETBV,
};

struct dwc_host_read {
	uint8_t kind, length;
	uint8_t reg, bytes; /* the operand of those that have one: number of the register, and how much of it is written */
};

/* One that was replaced by a trap (sites.c). */
struct dwc_site {
	uint64_t gpa;
	struct dwc_host_read read;
	uint8_t user;
};

struct dwc_inputs {
	int vector;                    /* interrupt injected at the start of the element, or -1 */
	int nmi;                       /* an NMI is */
	int window;                    /* an interrupt window was asked for */
	int answer;                    /* enum dwc_answer, besides io_data */
	uint32_t cr8;                  /* the task priority, which a write to the local APIC sets, too */
	struct dwc_host_read read;     /* of a site, */
	uint64_t value, next_rip;      /* what it reads, and where it goes on */
	uint64_t aux;                  /* TSC_AUX: RDTSCP reads that, too */
	uint64_t debug_payload;        /* DR6 of the guest's own debug exception */
	uint64_t tsc;                  /* what RDTSC reads, where the TSC stands still */
	uint8_t io_data[DWC_IO_BYTES]; /* what the device answered to the exit before it */
};

/* A search for a host's value from the checkpoint on. In: kinds (a bit for each enum dwc_read_kind), limit (single steps), limit_ns
 * (of single steps), events (of a free run by the progress counter; 0: no such bound). The rest is what was found. */
struct dwc_search {
	uint32_t kinds;
	uint64_t limit, limit_ns, events, steps, gpa, linear;
	uint32_t exit_reason;      /* that ended it */
	struct dwc_host_read read; /* the instruction found, or nothing */
	int user;                  /* in ring 3 */
	int long_mode;             /* in 64-bit code */
	int timed_out;
};

/* A committed element since the checkpoint, so that it can be run again: its inputs and its end. */
struct dwc_logged {
	struct dwc_inputs inputs;
	struct dwc_exit exit;
	uint64_t sum;
	uint64_t ran_ns; /* how long it took, for a replay's patience: not in the sum */
};

/* A single step under way (debug.c): which instruction needs care, and where its stack was. */
struct dwc_step {
	int sysret, pushf;
	uint64_t rsp;
};

struct dwc_stats {
	uint64_t committed, rollbacks, pages_compared, pages_hot_max, pages_copied;
	uint64_t by_end[64]; /* indexed by KVM_EXIT_* */
	uint64_t normalised_rf, normalised_unusable;
	/* slice ends: debug exits and catch-ups they took, |n1 - n2| and lateness of e1 by powers of two */
	uint64_t debug_exits, catch_ups, distance[DWC_HISTOGRAM], lateness[DWC_HISTOGRAM];
	uint64_t longest_ns, longest_permille; /* elements, by time and by the count of a slice */
	uint64_t tick_waits;
	uint64_t checkpoint_repairs; /* pages that a rollback found damaged in the checkpoint */
	uint64_t scrub_pages, scrub_passes, scrub_ns, scrub_repairs[DWC_COPIES + 1]; /* the last: none was right */
	uint64_t first_run_ns, second_run_ns, compare_ns, rollback_ns, device_ns;
	uint64_t restore_ns, flush_ns; /* in place: between e1 and e2 */
};

struct dwc_engine {
	struct dwc_replica replicas[2];
	int strategy, flush, nslots, out_rip_after;
	int spin_turns;    /* how long a thread looks for work before it sleeps: 0 on one CPU */
	int exact_windows; /* an interrupt window ends an element at an architectural point */
	int waiting;       /* elements that a due interrupt could not be injected into, where they are not */
	uint64_t ram_bytes;
	uint8_t *checkpoint_ram;
	struct dwc_state checkpoint;
	struct dwc_exit checkpoint_exit; /* the exit at which the checkpoint stands */
	uint64_t *sums, checkpoint_sum;  /* of its pages, and of the two above */
	uint64_t *new_sums;              /* of the changed pages, in a commit */
	/* elements committed since: compared in all but the groups that cost an ioctl, inputs logged */
	struct dwc_logged log[DWC_LOG_ELEMENTS];
	uint32_t log_count, checkpoint_every; /* a checkpoint at least every so many elements */
	const struct dwc_exit *expected;      /* in a replay */
	uint64_t replay_ns;                   /* and how long it may take */
	struct dwc_state committed;           /* the synced groups of the last logged element: a replay must arrive there */
	int checkpoint_due;                   /* this element ends with one: the replicas read all groups */
	/* guest time since memory was compared last, and how long it may be (docs/decisions/0003) */
	uint64_t unseen_ns, memory_every_ns;
	struct dwc_exit exit;                 /* of the last committed element */
	struct dwc_inputs inputs;
	int has_pending_io; /* it is an I/O exit whose instruction is not finished */
	int has_xcrs;
	uint32_t msr_count;
	uint32_t msr_index[DWC_MAX_MSRS];
	uint8_t *idle; /* a page: elements since its content changed while it stayed writable */
	uint32_t idle_limit;
	struct dwc_dirty *dirty; /* of this element; room for all of RAM, as in the next one */
	uint32_t *changed;       /* page numbers: not as in the checkpoint */
	uint32_t dirty_count, changed_count, cold_count;
	int compare_all; /* with the checkpoint as well */
	/* slices */
	int counting;             /* there is a progress counter */
	int agreed;               /* the element's ends were compared already: a slice end */
	int arm, rearm;           /* this element starts a new slice; it must, the counts are void */
	uint32_t counter_type;    /* perf_event_attr */
	uint64_t counter_config;
	uint64_t slice_ns, slice_events, budget;
	uint64_t slice_used_ns; /* guest time since the counters were armed */
	struct dwc_counter_habits habits;
	/* the frozen TSC, where the host scales it: KVM's ratio, with so many fraction bits; 0: it runs as the host has it */
	uint64_t tsc_ratio, tsc_tick, tsc_host_khz;
	uint32_t tsc_bits;
	uint64_t events_per_ms;   /* what the counter counts in a millisecond of guest time */
	/* in place */
	int cache_flush;
	uint8_t *evict; /* room for twice the last-level cache: reading it leaves nothing else there */
	uint64_t evict_bytes;
	int pause_between, rewound; /* come back once between e1 and e2; e2 is what comes next */
	struct dwc_msrs msrs_given; /* to KVM, last */
	int fragment; /* KVM's emulator has exited for the next part of an instruction: that is an element, without guest code */
	/* time */
	uint64_t guest_ns, clock_divisor;
	uint64_t patience_ns; /* how long an element may keep a due interrupt waiting */
	uint64_t patience_factor; /* this element gets so many times as long */
	uint64_t hang_ns;     /* how much longer than the other a replica may take */
	uint64_t host_base_ns; /* nonzero: the guest clock follows the host from here */
	int halted;     /* after HLT, until an interrupt is pending */
	int idle_waits; /* idle time passes at the host's pace, even of a virtual clock */
	atomic_int stop, attention;
	/* devices in C */
	struct dwc_pic pic;
	struct dwc_ioapic ioapic;
	struct dwc_lapic lapic;
	struct dwc_pit pit;
	struct dwc_rtc rtc;
	struct dwc_pci pci;
	struct dwc_uart uart;
	uint16_t uart_base;
	int has_backlog; /* input waits for room in the UART */
	uint32_t tsc_aux; /* the MSR */
	/* learned time sites */
	int user_trap;       /* enum dwc_user_trap */
	int icebp_rip_after; /* where RIP stands at the debug exit of an ICEBP */
	int user_sites;      /* how many are in ring 3, and need debug exits */
	uint32_t site_count;
	struct dwc_site sites[DWC_MAX_SITES];
	uint64_t site_reads, site_time, site_base; /* how many, the last time, and what is read at guest time 0 */
	struct dwc_search search;
	/* the last divergence */
	uint32_t diff;
	uint32_t diff_count;
	uint64_t diff_gpa[DWC_MAX_DIFFS];
	uint64_t elements_limit; /* stop after so many committed in all; 0: none */
	int retrying;            /* the element is run again from a restored checkpoint */
	/* the scrubber: 0 bytes a second: off */
	uint64_t scrub_bytes_per_s, scrub_from_ns, scrub_at, repair_gpa;
	int repair_copy; /* enum dwc_copy; DWC_COPIES: none was right */
	/* visits: the caller gets in at both ends of an element, from this one on (UINT64_MAX: never) */
	uint64_t visit_from;
	int start_visited, at_end; /* of this element */
	struct dwc_stats stats;
};

/* host.c */
long dwc_ioctl(int fd, unsigned long request, void *argument);
uint64_t dwc_now_ns(void);
int dwc_install_kick(void);

/* state.c */
int dwc_state_prime(struct dwc_replica *r);
int dwc_state_get(struct dwc_replica *r, struct dwc_state *out);
int dwc_set_regs(struct dwc_replica *r);
uint64_t dwc_linear_rip(const struct dwc_state *s);
void dwc_state_get_synced(struct dwc_replica *r, struct dwc_state *out);
int dwc_state_set(struct dwc_replica *r, const struct dwc_state *in, int flush_tlb);
int dwc_flush_tlb(struct dwc_replica *r, const struct kvm_sregs *sregs);
int dwc_set_msrs(struct dwc_replica *r, const struct dwc_msrs *msrs);
uint32_t dwc_state_compare(struct dwc_state *a, struct dwc_state *b, struct dwc_stats *stats);
uint32_t dwc_state_compare_synced(struct dwc_state *a, struct dwc_state *b, struct dwc_stats *stats);

/* replica.c */
int dwc_replica_start(struct dwc_replica *r);
void dwc_replica_stop(struct dwc_replica *r);
int dwc_replica_call(struct dwc_replica *r, int (*job)(struct dwc_replica *));
int dwc_replica_call_both(struct dwc_engine *e, int (*job)(struct dwc_replica *));
void dwc_replica_post(struct dwc_replica *r, int (*job)(struct dwc_replica *));
int dwc_replica_wait(struct dwc_replica *r);
int dwc_replica_run(struct dwc_replica *r, uint64_t limit_ns);
int dwc_replica_kick_after(struct dwc_replica *r, uint64_t ns);
int dwc_replica_finish(struct dwc_replica *r);
int dwc_replica_complete(struct dwc_replica *r);
int dwc_replica_answer(struct dwc_replica *r);
int dwc_replica_feed(struct dwc_replica *r);
int dwc_replica_read_state(struct dwc_replica *r);
uint64_t dwc_ran_ns(const struct dwc_replica *r);

/* counter.c */
int dwc_counter_open(struct dwc_replica *r);
void dwc_counter_close(struct dwc_replica *r);
int dwc_counter_arm(struct dwc_replica *r, uint64_t budget);
int dwc_counter_disarm(struct dwc_replica *r);
int dwc_counter_extend(struct dwc_replica *r, uint64_t more);
int dwc_counter_read(struct dwc_replica *r, uint64_t *count);
int dwc_counter_try(struct dwc_replica *r, uint64_t budget, uint64_t *count);

/* tsc.c */
void dwc_tsc_choose(struct dwc_engine *e);
int dwc_tsc_enter(struct dwc_replica *r);
void dwc_tsc_exit(struct dwc_replica *r, uint64_t ran_ns);

/* insn.c */
unsigned dwc_repeated_string(const uint8_t *code, int long_mode);
void dwc_host_read_at(const uint8_t *code, int long_mode, struct dwc_host_read *read);

/* align.c */
uint64_t dwc_budget_to_end_at(const struct dwc_engine *e, uint64_t count);
uint64_t dwc_budget_of_b(const struct dwc_engine *e, uint64_t count);
int dwc_align(struct dwc_engine *e);
int dwc_align_to_natural(struct dwc_replica *r, uint64_t limit);

/* guard.c */
uint64_t dwc_page_sum(const uint8_t *page);
uint64_t dwc_checkpoint_sum(const struct dwc_engine *e);
uint64_t dwc_logged_sum(const struct dwc_logged *l, const struct dwc_exit *before);
int dwc_guard_log(const struct dwc_engine *e);
int dwc_guard_page(struct dwc_engine *e, uint64_t gpa);
void dwc_guard_start(struct dwc_engine *e);

/* scrub.c */
int dwc_scrub(struct dwc_engine *e);
int dwc_scrub_page(struct dwc_engine *e, uint64_t gpa);
int dwc_page_mend(struct dwc_engine *e, uint64_t gpa);

/* difference.c: 0 if two pages are equal */
typedef uint64_t (*dwc_difference_function)(const uint8_t *a, const uint8_t *b);
extern dwc_difference_function dwc_difference;
uint64_t dwc_difference_wide(const uint8_t *a, const uint8_t *b);
uint64_t dwc_difference_words(const uint8_t *a, const uint8_t *b);
void dwc_difference_choose(const uint8_t *a, const uint8_t *b);

/* pages.c */
int dwc_pages_harvest(struct dwc_replica *r);
int dwc_memory_due(const struct dwc_replica *r);
void dwc_pages_list(struct dwc_engine *e);
uint32_t dwc_pages_compare(struct dwc_engine *e, int at_checkpoint);
int dwc_pages_commit(struct dwc_engine *e);
int dwc_pages_rollback(struct dwc_engine *e, int all);
int dwc_pages_rearm(struct dwc_engine *e);

/* interrupts.c */
void dwc_set_gsi(struct dwc_engine *e, unsigned gsi, int high);
void dwc_send_msi(struct dwc_engine *e, uint64_t address, uint32_t data);
int dwc_interrupt_pending(const struct dwc_engine *e);
int dwc_interrupt_acknowledge(struct dwc_engine *e);

/* msrs.c */
int dwc_msrs_filter(int vm_fd, int time);
void dwc_msr_serve(struct dwc_engine *e);
void dwc_msr_answer(struct dwc_replica *r);

/* platform.c */
int dwc_platform_mmio(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data);
int dwc_platform_io(struct dwc_engine *e, const struct dwc_exit *exit, uint8_t *data);
int dwc_platform_read_port(struct dwc_engine *e, uint16_t port);
int dwc_platform_write_port(struct dwc_engine *e, uint16_t port, uint8_t value);
void dwc_platform_tick(struct dwc_engine *e);
uint64_t dwc_platform_deadline(struct dwc_engine *e);

/* translate.c */
int dwc_translate(struct dwc_replica *r, uint64_t linear, uint64_t *gpa);
void dwc_read_code(struct dwc_replica *r, uint64_t linear, uint8_t *code, unsigned length);

/* search.c */
int dwc_is_wanted(const struct dwc_search *s, const struct dwc_host_read *read);
int dwc_at_host_read(struct dwc_replica *r, struct dwc_search *s);
int dwc_search(struct dwc_engine *e, int replica, int (*job)(struct dwc_replica *));
int dwc_search_by_steps(struct dwc_engine *e, int replica);

/* scan.c */
int dwc_search_by_traps(struct dwc_engine *e, int replica);

/* sites.c */
int dwc_learn_site(struct dwc_engine *e);
extern const uint8_t dwc_port_trap[], dwc_sysenter_trap[]; /* DWC_LONGEST_READ bytes */
uint64_t dwc_next_time(struct dwc_engine *e);
int dwc_site_answer(struct dwc_engine *e);
void dwc_pass_host_read(struct dwc_engine *e);
void dwc_reflect_debug_exception(struct dwc_engine *e);
int dwc_reflect_undefined(struct dwc_engine *e);
int dwc_give_answer(struct dwc_replica *r);

/* debug.c */
int dwc_set_stepping(struct dwc_replica *r, int on);
int dwc_begin_step(struct dwc_replica *r, struct dwc_step *step);
int dwc_end_step(struct dwc_replica *r, const struct dwc_step *step);
int dwc_set_breakpoint(struct dwc_replica *r, uint64_t linear);

/* exit.c */
void dwc_describe_exit(struct dwc_replica *r);
void dwc_replica_ends_by(struct dwc_replica *r, uint32_t reason);
uint64_t dwc_exit_length(const struct dwc_exit *x);
void dwc_copy_exit(struct dwc_exit *to, const struct dwc_exit *from);
void dwc_copy_inputs(const struct dwc_engine *e, struct dwc_inputs *to, const struct dwc_inputs *from);
int dwc_same_exit(const struct dwc_exit *a, const struct dwc_exit *b);
int dwc_finishes_later(const struct dwc_engine *e, const struct dwc_exit *x);
int dwc_replayable(const struct dwc_exit *x);
int dwc_returnable(const struct dwc_exit *x, const struct dwc_exit *before);
int dwc_is_io(const struct dwc_exit *x);
int dwc_is_msr(const struct dwc_exit *x);

/* slice.c */
int dwc_slice_plan(struct dwc_engine *e);
int dwc_slice_arm(struct dwc_replica *r);
int dwc_slice_measure(struct dwc_engine *e);
void dwc_slice_note(struct dwc_engine *e);

/* element.c */
int dwc_job_element(struct dwc_replica *r);
int dwc_extend(struct dwc_engine *e, struct dwc_replica *r);
int dwc_engine_run(struct dwc_engine *e);

/* dma.c */
int dwc_is_doorbell(const struct dwc_exit *x);
int dwc_memory_at_rest(const struct dwc_engine *e);
int dwc_memory_read(struct dwc_engine *e, uint64_t gpa, uint8_t *out, uint64_t length);
int dwc_memory_write(struct dwc_engine *e, uint64_t gpa, const uint8_t *data, uint64_t length);

/* commit.c */
void dwc_advance_clock(struct dwc_engine *e, uint64_t ran_ns);
int dwc_engine_commit(struct dwc_engine *e);
int dwc_engine_checkpoint(struct dwc_engine *e);

/* inplace.c */
int dwc_inplace_settle(struct dwc_engine *e);
int dwc_inplace_rewind(struct dwc_engine *e);
int dwc_inplace_execute(struct dwc_engine *e);

/* caches.c */
void dwc_caches_prepare(struct dwc_engine *e);
void dwc_caches_flush(struct dwc_engine *e);

/* rollback.c */
int dwc_job_restore(struct dwc_replica *r);
int dwc_engine_rollback(struct dwc_engine *e, int all);

/* engine.c */
int dwc_engine_start(struct dwc_engine *e);
void dwc_engine_stop(struct dwc_engine *e);
void dwc_engine_answer(struct dwc_engine *e, const uint8_t *data, uint64_t length);
int dwc_engine_step(struct dwc_engine *e, int replica);
int dwc_engine_resume_inputs(struct dwc_engine *e, int replica);
int dwc_engine_enter(struct dwc_engine *e, int replica);
int dwc_engine_run_for(struct dwc_engine *e, int replica, uint64_t ns);
int dwc_engine_move(struct dwc_engine *e, int replica, int cpu);
void dwc_engine_request_stop(struct dwc_engine *e);
void dwc_engine_request_attention(struct dwc_engine *e);

#endif
