"""The one door to C: typed views of what the core shows, and verbs for what it can be asked to do. Nobody else imports
dwcvmm._core, and nobody outside sets a field of C's structures.

config: what an engine is made of. engine: elements, rollbacks, checkpoints. replica, state, ram: what it shows.
pcdevices: the PC's devices in C. insn, counter: what C knows of instructions, a progress counter on trial. kvmstructs:
the structures of <linux/kvm.h>. enums: C's enumerations. failure: errors. fields: how views are made.
"""
