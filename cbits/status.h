/* The results of the core's functions.
 *
 * A function that returns one of these types is declared as int. A negative number is -errno: the host has refused something. 0
 * means that the caller can go on. All other values are positive, and no value is in two of the types, so that a result of the
 * wrong type is detected (DWC_ASSERT in element.c). */
#ifndef DWC_STATUS_H
#define DWC_STATUS_H

/* How a replica's run has ended. */
enum dwc_run_end {
	DWC_RUN_EXIT,                /* by an exit of the guest: its natural end */
	DWC_RUN_COUNTER = 0x100,     /* by an overflow of its counter, anywhere: both have to be brought to a common point */
	DWC_RUN_TIME_LIMIT,          /* by the time limit: the element is not over, and mostly discarded */
	DWC_RUN_STOP_REQUESTED,      /* a stop was requested: the element is not over */
};

/* Why dwc_engine_run() returns to Python. */
enum dwc_stop {
	DWC_STOP_NONE,
	DWC_STOP_EXIT = 0x200,       /* a committed exit that no device in C can serve */
	DWC_STOP_CONSOLE,            /* a serial port has sent something: drain it */
	DWC_STOP_DIVERGED,           /* e1 and e2 differ: see dwc_engine.divergence */
	DWC_STOP_TIME_LIMIT,         /* neither replica reached a natural end in time: nothing is committed */
	DWC_STOP_REQUESTED,          /* a stop was requested; the current element is not committed */
	DWC_STOP_IDLE,               /* HLT, and no interrupt can come from a device in C */
	DWC_STOP_ELEMENT_LIMIT,      /* the number of elements asked for is committed */
	DWC_STOP_ATTENTION,          /* another thread has something for the devices */
	DWC_STOP_REPAIRED,           /* the scrubber has repaired a page: repair_gpa, repair_copy */
	DWC_STOP_WAITING,            /* interrupt windows are inexact on this host, and an interrupt has waited too long for a natural end */
	DWC_STOP_BREAKPOINT,         /* a committed debug exception of a debugger's point: see dwc_engine.points.hits */
	DWC_STOP_ELEMENT_START,      /* a visit: the inputs are chosen, neither replica has started */
	DWC_STOP_BETWEEN_RUNS,       /* a visit, in place: the VM is rewound, and e2 starts with the next call */
	DWC_STOP_ELEMENT_END,        /* a visit: both replicas have ended, nothing is compared */
	DWC_STOP_RECORDED,           /* much of a recording waits to be taken */
};

/* The result of a commit, or of a checkpoint at the last committed state. */
enum dwc_commit_result {
	DWC_COMMIT_DONE,
	DWC_COMMIT_DIVERGED = 0x300, /* the replicas differ (dwc_engine.divergence): nothing was committed */
};

/* The result of a rollback. If it fails the replicas are in an undefined state, and the run is over. */
enum dwc_rollback_result {
	DWC_ROLLBACK_DONE,
	DWC_ROLLBACK_STOP_REQUESTED = 0x400,
	DWC_ROLLBACK_UNREPEATABLE,   /* the replay does not reach the last committed state: a logged element read time */
	DWC_ROLLBACK_DAMAGED,        /* the checkpoint is not what was saved */
};

/* The result of a read of guest memory for a device. */
enum dwc_memory_result {
	DWC_MEMORY_READ,
	DWC_MEMORY_REPAIRED = 0x500,   /* the three copies of a page differed, and agree now (repair_copy, repair_gpa): read again */
	DWC_MEMORY_LOST,             /* they differ, and no copy is right */
};

/* The result of scrubbing a page. */
enum dwc_scrub_result {
	DWC_SCRUB_RIGHT,
	DWC_SCRUB_WRONG = 0x600,     /* a copy was wrong: repaired if another one was right (repair_copy, repair_gpa) */
};

/* The result of work on a virtqueue. If it reads guest memory: also one of dwc_memory_result. */
enum dwc_queue_result {
	DWC_QUEUE_EMPTY,
	DWC_QUEUE_REQUEST = 0x900,   /* there is one; the guest wants to hear of one */
	DWC_QUEUE_INVALID,           /* it holds something that virtio does not allow */
};

/* The result of aligning two replicas of which at least one was ended by its counter. */
enum dwc_align_result {
	DWC_ALIGN_MET,               /* both are at the same point: all state agrees */
	DWC_ALIGN_NATURAL = 0x700,   /* both have reached an exit of the guest */
	DWC_ALIGN_MISSED,            /* no common point was found */
	DWC_ALIGN_STOP_REQUESTED,
};

/* The result of single steps (element/steps.c). */
enum dwc_steps_result {
	DWC_STEPS_DONE,
	DWC_STEPS_DISCARDED = 0x800, /* they met an instruction that behaves differently under them, or no common point: roll back */
};

/* The result of a replay of recorded elements. */
enum dwc_replay_result {
	DWC_REPLAY_WANTS_MORE,       /* all that was given is used */
	DWC_REPLAY_REACHED = 0xa00,  /* the element that was wanted */
	DWC_REPLAY_DIFFERS,          /* this VM has come elsewhere: dwc_engine.replay says what differs */
	DWC_REPLAY_MALFORMED,        /* this is no recording, or is damaged */
	DWC_REPLAY_STOP_REQUESTED,
	DWC_REPLAY_ENDED,            /* the recording is over */
	DWC_REPLAY_AT_START,         /* of the element that is wanted, or whose first instruction is a point: its inputs are chosen, and it
				      * has not run */
	DWC_REPLAY_MET,              /* the same, of an element that meets a point when it runs */
};

/* The result of a move within a recorded element (element/within.c). */
enum dwc_within_result {
	DWC_WITHIN_DONE,
	DWC_WITHIN_MET = 0xb00,      /* a point */
	DWC_WITHIN_OVER,             /* the element's end has come first */
	DWC_WITHIN_AT_EXIT,          /* the next inner exit has, which is not answered yet */
	DWC_WITHIN_STUCK,            /* the next instruction cannot be stepped, or has no end that is known: dwc_engine.steps.done
				      * were executed before it. The VM's state is undefined, up to a rollback */
	DWC_WITHIN_STOP_REQUESTED,
};

/* What can differ between two replicas; one bit each, so that several can be combined. */
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
	DWC_DIFF_HANG = 1 << 9, /* one replica has ended, the other has not */
	DWC_DIFF_DEVICES = 1 << 10, /* inner exits, their answers, or what became of the devices */
};

enum dwc_copy { DWC_COPY_A, DWC_COPY_B, DWC_COPY_CHECKPOINT, DWC_COPIES }; /* of RAM */

#endif
