"""The one door to C: typed views of the core's state, and verbs for what it can do. No other package imports
dwcvmm._core, and no code outside sets a field of C's structures.

config: an engine's configuration. engine: elements, rollbacks, checkpoints. replica, state, ram: views of its state.
chipset: the PC's devices in C. insn: instructions. counter: tries a progress counter. kvmstructs: the structures of
<linux/kvm.h>. enums: C's enumerations. failure: errors. fields: how views are made.
"""
