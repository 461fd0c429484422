"""Disk images: files whose bytes are a disk's (raw), qcow2 to read, and a layer for writes that are to be forgotten."""

from dwcvmm.pc.devices.disk.base import FORMATS, SECTOR, Disk, DiskConfig, parse_disk
from dwcvmm.pc.devices.disk.opening import open_disk

__all__ = ["FORMATS", "SECTOR", "Disk", "DiskConfig", "open_disk", "parse_disk"]
