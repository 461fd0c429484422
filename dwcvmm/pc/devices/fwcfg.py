"""The firmware configuration device of QEMU's machines, by ports (QEMU, docs/specs/fw_cfg): from it a BIOS gets
the memory map, the ACPI tables, the user's options, and a kernel to start, if there is one.

DMA moves an item, or a part of one, into guest memory at once. The guest writes the address of a request; the machine
calls `process` when devices may use guest memory, and the guest sees the request's control word change.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Self

from dwcvmm.guest.memory import GuestMemory, GuestMemoryError
from dwcvmm.saved.form import FirmwareForm

SIGNATURE, FEATURES, CPUS, DIRECTORY, FIRST_FILE = 0x00, 0x01, 0x05, 0x19, 0x20  # keys
TRADITIONAL, DMA = 1, 2  # of FEATURES
NAME_BYTES = 56
SELECTOR, DATA, DMA_HIGH, DMA_LOW, PORTS = 0, 1, 4, 8, 12  # offsets, and how many there are
DMA_SIGNATURE = b"QEMU CFG"  # read where the address is written
REQUEST = struct.Struct(">IIQ")  # control, length, address: big endian
ERROR, READ, SKIP, SELECT, WRITE = (1 << bit for bit in range(5))  # control; a key for SELECT in its upper half


class FirmwareConfig:
    """`files`: contents by name; `items`: further ones by key. `memory`: the guest's, for DMA; None: no DMA.

    A 16-bit write to offset 0 selects a key. Each read at offset 1 gives the next byte of its item.
    """

    def __init__(
        self, files: dict[str, bytes], items: dict[int, bytes] | None = None, memory: GuestMemory | None = None
    ) -> None:
        features = TRADITIONAL | DMA if memory else TRADITIONAL
        entries = struct.pack(">I", len(files))
        self._items = {SIGNATURE: b"QEMU", FEATURES: struct.pack("<I", features), CPUS: struct.pack("<H", 1)}
        self._items |= items or {}
        for key, (name, content) in enumerate(files.items(), FIRST_FILE):
            entries += struct.pack(f">IHH{NAME_BYTES}s", len(content), key, 0, name.encode())
            self._items[key] = content
        self._items[DIRECTORY] = entries
        self._key = self._at = 0
        self._item = b""
        self._memory, self._address_high = memory, 0
        self._request: int | None = None  # its address

    def read(self, offset: int, size: int) -> int:
        """Reads give zeros past the end of an item, and for an unknown key."""
        if self._memory and offset >= DMA_HIGH:
            return int.from_bytes(DMA_SIGNATURE[offset - DMA_HIGH :][:size], "big")
        if offset != DATA or size != 1:
            return 0
        return self._take(1)[0]

    def write(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (SELECTOR, 2):
            self._select(value)
        elif (offset, size) == (DMA_HIGH, 4):
            self._address_high = _swapped(value)
        elif (offset, size) == (DMA_LOW, 4) and self._memory:
            self._request = self._address_high << 32 | _swapped(value)
            self._address_high = 0

    @property
    def items(self) -> Mapping[int, bytes]:
        """All of them, by key."""
        return self._items

    def saved(self) -> FirmwareForm:
        """No request waits."""
        return FirmwareForm(key=self._key, at=self._at, address_high=self._address_high)

    @classmethod
    def restored(cls, form: FirmwareForm, items: Mapping[int, bytes], memory: GuestMemory) -> Self:
        made = cls({}, memory=memory)
        made._items = dict(items)
        made._select(form.key)
        made._at, made._address_high = form.at, form.address_high
        return made

    @property
    def waiting(self) -> bool:
        """Whether there is a request in guest memory."""
        return self._request is not None

    def process(self) -> None:
        """Carry out the request. Guest memory has been verified, and the guest is not running."""
        address, self._request = self._request, None
        if address is None or not self._memory:
            return
        try:
            control, length, target = REQUEST.unpack(self._memory.read(address, REQUEST.size))
            self._memory.write(address, struct.pack(">I", self._transfer(self._memory, control, length, target)))
        except GuestMemoryError:
            return  # an answer cannot be written either

    def _transfer(self, memory: GuestMemory, control: int, length: int, target: int) -> int:
        """Carry out a request; returns the new control word."""
        if control & SELECT:
            self._select(control >> 16)
        if control & WRITE:
            return ERROR  # no item can be written
        if control & READ:
            try:
                memory.check(target, length)
            except GuestMemoryError:
                return ERROR
            memory.write(target, self._take(length))
        elif control & SKIP:
            self._at += length
        return 0

    def _select(self, key: int) -> None:
        self._key, self._item, self._at = key, self._items.get(key, b""), 0

    def _take(self, length: int) -> bytes:
        """The next bytes of the item, and zeros past its end."""
        at, self._at = self._at, self._at + length
        return self._item[at : at + length].ljust(length, b"\0")


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "little"), "big")
