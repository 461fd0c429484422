"""Guest memory while a guest is loaded: the kernel goes where it asks for, the loader's own things elsewhere."""

from __future__ import annotations

from pathlib import Path

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.memory import PAGE, GuestMemory
from dwcvmm.pc import layout

MIB = 1 << 20
Zone = tuple[int, int]  # start and end, guest physical
LOW: Zone = (PAGE, layout.EBDA)  # free in the memory map, and below the BIOS
# what firmware leaves, and the memory map calls reserved
FIRMWARE = {
    "the extended BIOS data": (layout.EBDA, layout.EBDA + layout.EBDA_BYTES),
    "the ACPI tables": (layout.BIOS, layout.BIOS_END),
}


class Room:
    """`path`: the file that errors are about."""

    def __init__(self, memory: GuestMemory, path: Path) -> None:
        self.memory, self.path = memory, path
        self._taken: list[Zone] = []

    @property
    def high(self) -> Zone:
        """RAM above 1 MiB and below 4 GiB, above all that is there already."""
        return (max([MIB, *(end for _, end in self._taken)]), self.memory.low_bytes)

    def load(self, start: int, content: bytes, size: int) -> int:
        """Load a part of the kernel at its own address. `size` includes the zeros that follow. Returns its end.

        Raises GuestImageError if there is no RAM, or if firmware occupies it.
        """
        end = start + max(size, len(content))
        if start >= layout.LOW_RAM_END:
            raise GuestImageError(
                self.path, f"wants to lie at {start:#x}, where no PC has RAM: firmware that runs from a ROM?"
            )
        if end > self.memory.low_bytes:
            there = self.memory.low_bytes // MIB
            raise GuestImageError(self.path, f"needs {-(-end // MIB)} MiB of memory, there are {there}")
        for name, (from_, to) in FIRMWARE.items():
            if start < to and end > from_:
                raise GuestImageError(
                    self.path, f"wants to lie at {start:#x} to {end:#x}: {name} are at {from_:#x} to {to:#x}"
                )
        self.memory.write(start, content)
        zeros_from = start + len(content)
        if zeros_from < PAGE:  # page 0 has the BIOS data; all other RAM is zero already
            self.memory.write(zeros_from, bytes(max(0, min(end, PAGE) - zeros_from)))
        if end > start:
            self._taken.append((start, end))
        return end

    def reserve(self, size: int, *zones: Zone, align: int = 16) -> int | None:
        """Reserve the lowest free place in the first zone that has one. Returns None if none has."""
        for zone, end in zones:
            at = -(-zone // align) * align
            while overlaps := [taken for start, taken in self._taken if start < at + size and taken > at]:
                at = -(-max(overlaps) // align) * align
            if at + size <= min(end, self.memory.low_bytes):
                if size:
                    self._taken.append((at, at + size))
                return at
        return None

    def put(self, content: bytes, what: str, *zones: Zone, align: int = 16) -> int:
        """Put something of the loader's own into the first zone that has room. Returns its address.

        Raises GuestImageError, which names `what`, if there is none.
        """
        at = self.reserve(len(content), *zones, align=align)
        if at is None:
            raise GuestImageError(self.path, f"{what} of {len(content)} bytes do not fit into memory beside the kernel")
        self.memory.write(at, content)
        return at

    def put_low(self, content: bytes, what: str, wanted: int, align: int = 16) -> int:
        """Put it below the BIOS, at `wanted` unless the kernel is there."""
        return self.put(content, what, (wanted, layout.EBDA), LOW, align=align)


def text_bytes(path: Path, text: str) -> bytes:
    """Text for a kernel, with its terminating zero: UTF-8; bytes from a shell that are not UTF-8 stay as they are."""
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise GuestImageError(path, f"the command line has a character without bytes: {text[error.start]!r}") from error
    if b"\0" in content:
        raise GuestImageError(path, "the command line has a zero byte, which would be its end")
    return content + b"\0"
