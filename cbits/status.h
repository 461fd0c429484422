/* What functions of the core answer.
 *
 * A function that answers in one of these types is declared as int: a negative number is -errno, what the host has refused, and
 * never one of them; 0 is the answer that lets the caller go on; all others are positive, and no number is in two of the types, so
 * that an answer of the wrong type is found out (DWC_ASSERT in element.c). */
#ifndef DWC_STATUS_H
#define DWC_STATUS_H

/* How a replica's run has ended. */
enum dwc_run_end {
	DWC_RUN_EXIT,                /* by an exit of the guest: its natural end */
	DWC_RUN_COUNTER = 0x100,     /* by its counter, somewhere: the other has to be brought there */
	DWC_RUN_TIME_LIMIT,          /* by the time limit: it is not over, and mostly discarded */
	DWC_RUN_STOP_REQUESTED,      /* it is not over */
};

/* Why dwc_engine_run() asks Python. */
enum dwc_stop {
	DWC_STOP_NONE,
	DWC_STOP_EXIT = 0x200,       /* a committed exit that no device in C serves */
	DWC_STOP_CONSOLE,            /* the UART has output to drain */
	DWC_STOP_DIVERGED,           /* e1 and e2 differ: see dwc_engine.diff */
	DWC_STOP_TIME_LIMIT,         /* neither replica reached a natural end in time: nothing is committed */
	DWC_STOP_REQUESTED,          /* the element under way is not committed */
	DWC_STOP_IDLE,               /* HLT, and no interrupt can come from a device in C */
	DWC_STOP_ELEMENT_LIMIT,      /* the number of elements asked for is committed */
	DWC_STOP_ATTENTION,          /* another thread has something for the devices */
	DWC_STOP_REPAIRED,           /* the scrubber has mended a page: repair_gpa, repair_copy */
	DWC_STOP_WAITING,            /* windows are inexact here, and an interrupt waited too long for a natural end */
	DWC_STOP_ELEMENT_START,      /* a visit: the inputs are chosen, neither replica has started */
	DWC_STOP_BETWEEN_RUNS,       /* a visit, in place: the VM is rewound, and e2 starts with the next call */
	DWC_STOP_ELEMENT_END,        /* a visit: both replicas have ended, nothing is compared */
};

/* What became of a commit, or of a checkpoint at the last committed state. */
enum dwc_commit_result {
	DWC_COMMIT_DONE,
	DWC_COMMIT_DIVERGED = 0x300, /* the replicas differ (dwc_engine.diff): nothing has happened */
};

/* What became of a rollback. Where it is not done, the replicas stand anywhere, and the run is over. */
enum dwc_rollback_result {
	DWC_ROLLBACK_DONE,
	DWC_ROLLBACK_STOP_REQUESTED = 0x400,
	DWC_ROLLBACK_UNREPEATABLE,   /* it cannot reach the last committed state: an element of the log read time */
	DWC_ROLLBACK_DAMAGED,        /* it would believe a checkpoint that is not what was saved */
};

/* What became of a read of guest memory for a device. */
enum dwc_memory_result {
	DWC_MEMORY_READ,
	DWC_MEMORY_MENDED = 0x500,   /* the three copies of a page differed, and agree now (repair_copy, repair_gpa): read again */
	DWC_MEMORY_LOST,             /* they differ, and none of them is right */
};

/* What a look at a page has shown. */
enum dwc_scrub_result {
	DWC_SCRUB_RIGHT,
	DWC_SCRUB_WRONG = 0x600,     /* something was wrong with it: mended if a copy was right (repair_copy, repair_gpa) */
};

/* How alignment of two replicas, one or both ended by their counters, came out. */
enum dwc_align_result {
	DWC_ALIGN_MET,               /* they stand at the same point: all state agrees */
	DWC_ALIGN_NATURAL = 0x700,   /* both have reached an exit of the guest */
	DWC_ALIGN_MISSED,            /* no common point was found */
	DWC_ALIGN_STOP_REQUESTED,
};

/* How single steps came out (steps.c). */
enum dwc_steps_result {
	DWC_STEPS_DONE,
	DWC_STEPS_DISCARDED = 0x800, /* they met what they change, or no common point: roll back */
};

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

enum dwc_copy { DWC_COPY_A, DWC_COPY_B, DWC_COPY_CHECKPOINT, DWC_COPIES }; /* of RAM */

#endif
