"""PCI: configuration space, how a CPU gets at it, the host bridge."""
