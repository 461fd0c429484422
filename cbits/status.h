/* What the core tells its caller: why it returned, what differs, which copy of memory was wrong. */
#ifndef DWC_STATUS_H
#define DWC_STATUS_H

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
