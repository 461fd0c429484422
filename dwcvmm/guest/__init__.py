"""The guest's processor and RAM: the CPU's state at the first instruction, CPUID as the guest sees it, memory."""
