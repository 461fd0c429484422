"""The checkpoint's memory as it was at one time, while the guest goes on (cbits/memory/kept.h)."""

from __future__ import annotations

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import PAGE
from dwcvmm.core.failure import check


class DamagedPageError(Exception):
    """A page is not what it was, by its sum; its guest physical address is the argument."""


class Kept:
    """Under a strategy with protection, and where the last committed state is the checkpoint: its memory as it is now,
    to be read later on the thread that runs the guest. Raises KvmError if there is no memory for that.
    """

    def __init__(self, core: Core) -> None:
        self._core, self._c = core, core._c
        check("keep memory", lib.dwc_kept_begin(core._c))
        self.pages = list(core.touched_pages())  # all others are zeros
        self._places: dict[int, int] = {}  # of pages that were written since, in what is kept
        self._room = ffi.new("uint8_t[]", PAGE)

    def read(self, gpa: int, length: int) -> bytes:
        """Whole pages. Raises DamagedPageError; MemoryError if the host had none for a page."""
        kept = self._c.kept
        for place in range(len(self._places), kept.count):
            self._places[int(kept.pages[place].page)] = place
        if self._c.undo.lost:
            raise MemoryError
        return b"".join(self._page(at) for at in range(gpa, gpa + length, PAGE))

    def _page(self, gpa: int) -> bytes:
        place = self._places.get(gpa // PAGE)
        if place is None:
            if not self._core.guard_page(gpa):
                raise DamagedPageError(gpa)
            return self._core.checkpoint_ram.read(gpa, PAGE)
        if lib.dwc_kept_read(self._c, place, self._room):
            raise DamagedPageError(gpa)
        return bytes(ffi.buffer(self._room))

    def end(self) -> None:
        """Keep nothing more."""
        lib.dwc_kept_end(self._c)
