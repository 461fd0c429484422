"""Disks at NBD servers (the NBD project's doc/proto.md), through libnbd, and qemu-nbd as a server of our own."""
