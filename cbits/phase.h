/* The phases in the life of an element (element.c), and the legal steps between them. */
#ifndef DWC_PHASE_H
#define DWC_PHASE_H

struct dwc_engine;

enum dwc_phase {
	DWC_PHASE_BETWEEN,        /* at the last committed state; the next element has no inputs yet */
	DWC_PHASE_FRAGMENT,       /* the same, in place: KVM's emulator has exited for the next part of an instruction, which is
				   * the next element, without guest code */
	DWC_PHASE_INPUTS_CHOSEN,  /* at the last committed state, with the inputs of the next element: a restart begins here */
	DWC_PHASE_START_VISITED,  /* the caller may have led replicas into the element: each is AT_COMMITTED or HAS_INPUTS */
	DWC_PHASE_RUNNING,        /* the replicas are somewhere in the element */
	DWC_PHASE_FIRST_RUN_DONE, /* in place: the VM is rewound, e2 is next */
	DWC_PHASE_BOTH_ENDED,     /* not compared yet, or a visitor may have changed what had been */
	DWC_PHASE_COMPARED,       /* both are at the same point, and all state has been found equal */
	DWC_PHASE_DISCARDED,      /* the element cannot be committed as it is: next is a rollback, or single steps to a common end */
	DWC_PHASE_ROLLING_BACK,   /* the replicas are in an undefined state; if it fails the run is over */
	DWC_PHASES
};

void dwc_set_phase(struct dwc_engine *e, enum dwc_phase to);

#endif
