/* The inputs of an element, and the log. */
#ifndef DWC_REPLICA_INPUTS_H
#define DWC_REPLICA_INPUTS_H

#include <stdint.h>

#include "replica/inner.h"
#include "vcpu/exit.h"
#include "vcpu/insn.h"
#include "vcpu/state.h"

#define DWC_LOG_ELEMENTS 32

struct dwc_engine;
struct dwc_replica;

/* The kind of answer to an exit. */
enum dwc_answer {
	DWC_ANSWER_IO,        /* a device's answer, if it was asked */
	DWC_ANSWER_SITE_PORT, /* a site's IN: the registers that its instruction writes */
	DWC_ANSWER_SITE_TRAP, /* a site in ring 3, or an instruction that is skipped: the same, and RIP goes past it */
	DWC_ANSWER_DEBUG,     /* a debug exception that is the guest's own */
	DWC_ANSWER_UNDEFINED, /* the same for an invalid opcode */
	DWC_ANSWER_REFUSED,   /* there is no such MSR: #GP */
};

struct dwc_inputs {
	int vector;                    /* interrupt injected at the start of the element, or -1 */
	int nmi;                       /* an NMI is injected */
	int window;                    /* an interrupt window was asked for */
	int settles;                   /* only the instruction at whose exit the element starts is finished (settle.c) */
	int answer;                    /* enum dwc_answer, besides io_data */
	uint32_t cr8;                  /* the task priority, which a write to the local APIC sets, too */
	struct dwc_insn read;          /* the instruction of a site, */
	uint64_t value, next_rip;      /* the value it reads, and the RIP after it */
	uint64_t aux;                  /* TSC_AUX: RDTSCP reads that, too */
	uint64_t debug_payload;        /* DR6 of the guest's own debug exception */
	uint64_t tsc;                  /* what RDTSC reads, if the TSC is frozen */
	uint64_t site_tsc;             /* what sites read within the element */
	uint8_t io_data[DWC_IO_BYTES]; /* what the device answered to the exit before it */
};

/* A logged element: its inputs and its end, so that it can be replayed. */
struct dwc_logged {
	struct dwc_inputs inputs;
	struct dwc_exit exit;
	struct dwc_inner_log inner;
	uint64_t sum;
	uint64_t ran_ns; /* how long it took, for the time limit of a replay; not part of the sum */
};

/* The log: elements committed since the checkpoint. They were compared except for the groups that cost an ioctl. */
struct dwc_log {
	struct dwc_logged entries[DWC_LOG_ELEMENTS];
	uint32_t count;
	const struct dwc_logged *replayed; /* the element that is replayed now, or NULL */
	struct dwc_state committed;      /* the synced groups of the last element: a replay must arrive at them */
	const struct dwc_exit *expected; /* the exit that a replay expects */
	uint64_t replay_ns;              /* and its time limit */
	uint64_t unseen_ns;              /* guest time since memory was compared last */
	int ticked;                      /* the frozen TSC ticked in one of them */
};

void dwc_copy_inputs(const struct dwc_engine *e, struct dwc_inputs *to, const struct dwc_inputs *from);
int dwc_replica_answer(struct dwc_replica *r);
int dwc_replica_feed(struct dwc_replica *r);
int dwc_replica_feed_once(struct dwc_replica *r);

#endif
