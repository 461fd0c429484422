"""virtio 1.2: split queues, the PCI transport, and devices behind it."""
