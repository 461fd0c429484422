"""virtio 1.2: split queues, the PCI transport, and the devices."""
