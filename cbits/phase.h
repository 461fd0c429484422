/* Where the engine stands in the life of an element (element.c), and which steps there are from there. */
#ifndef DWC_PHASE_H
#define DWC_PHASE_H

struct dwc_engine;

enum dwc_phase {
	DWC_PHASE_BETWEEN,        /* at the last committed state; the next element has no inputs yet */
	DWC_PHASE_FRAGMENT,       /* in place, the same: KVM's emulator has exited for the next part of an instruction, and that is
				   * the next element, without guest code */
	DWC_PHASE_INPUTS_CHOSEN,  /* at the last committed state, with the inputs of the next element: a retry starts here */
	DWC_PHASE_START_VISITED,  /* the caller may have led replicas into the element: each is AT_COMMITTED or HAS_INPUTS */
	DWC_PHASE_RUNNING,        /* the replicas stand anywhere */
	DWC_PHASE_FIRST_RUN_DONE, /* in place: the VM is rewound, e2 is next */
	DWC_PHASE_BOTH_ENDED,     /* nothing is compared yet, or a visitor may have changed what was */
	DWC_PHASE_COMPARED,       /* both stand at the same point, where all state has been found equal */
	DWC_PHASE_DISCARDED,      /* the element cannot be committed as it is: a rollback comes next, or single steps to a common end */
	DWC_PHASE_ROLLING_BACK,   /* the replicas stand anywhere; the run is over if it fails */
	DWC_PHASES
};

void dwc_set_phase(struct dwc_engine *e, enum dwc_phase to);

#endif
