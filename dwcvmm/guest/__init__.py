"""What a VM needs to know of the processor: the CPU at its first instruction, CPUID as a guest sees it, RAM."""
