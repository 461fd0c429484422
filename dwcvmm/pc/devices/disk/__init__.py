"""Disks: raw files, qcow2, NBD servers, and a layer for writes that are lost at the end."""

from dwcvmm.pc.devices.disk.base import FORMATS, SECTOR, Disk, DiskConfig, parse_disk
from dwcvmm.pc.devices.disk.opening import open_disk

__all__ = ["FORMATS", "SECTOR", "Disk", "DiskConfig", "open_disk", "parse_disk"]
