"""What a VM needs to know of the processor: its first state, CPUID, RAM."""
