"""The firmware configuration device of QEMU's machines, by ports (QEMU, docs/specs/fw_cfg): a BIOS asks it for the
memory map, the ACPI tables, and what the user wants.
"""

from __future__ import annotations

import struct

SIGNATURE, FEATURES, CPUS, DIRECTORY, FIRST_FILE = 0x00, 0x01, 0x05, 0x19, 0x20  # keys
TRADITIONAL = 1  # of FEATURES: ports, no DMA
NAME_BYTES = 56
SELECTOR, DATA = 0, 1  # offsets


class FirmwareConfig:
    """`files`: contents by name. A 16-bit write to offset 0 selects a key, each byte read at offset 1 is its next."""

    def __init__(self, files: dict[str, bytes]) -> None:
        entries = struct.pack(">I", len(files))
        self._items = {SIGNATURE: b"QEMU", FEATURES: struct.pack("<I", TRADITIONAL), CPUS: struct.pack("<H", 1)}
        for key, (name, content) in enumerate(files.items(), FIRST_FILE):
            entries += struct.pack(f">IHH{NAME_BYTES}s", len(content), key, 0, name.encode())
            self._items[key] = content
        self._items[DIRECTORY] = entries
        self._item, self._at = b"", 0

    def read(self, offset: int, size: int) -> int:
        """Zeros behind the end, and for a key that is not there."""
        if offset != DATA or size != 1:
            return 0
        at, self._at = self._at, self._at + 1
        return self._item[at] if at < len(self._item) else 0

    def write(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (SELECTOR, 2):
            self._item, self._at = self._items.get(value, b""), 0
