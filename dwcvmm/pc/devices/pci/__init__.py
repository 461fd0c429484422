"""PCI: configuration space, how a CPU accesses it, the host bridge."""
