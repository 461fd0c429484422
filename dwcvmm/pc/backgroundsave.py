"""A machine that goes on while it is saved: its memory is written piece by piece, as it was when that began."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress

from dwcvmm.core import saving as core_saving
from dwcvmm.core.engine import Core
from dwcvmm.core.kept import DamagedPageError, Kept
from dwcvmm.element.engine import Engine
from dwcvmm.errors import DwcVmmError
from dwcvmm.pc.agenda import Agenda, Planned
from dwcvmm.pc.saving import with_code
from dwcvmm.saved import pages
from dwcvmm.saved.folder import SaveError
from dwcvmm.saved.form import MachineForm
from dwcvmm.saved.increments import Parent
from dwcvmm.saved.writer import Sink

EVERY_NS = 4_000_000  # of the guest clock, which can be much slower than the host's
SHARE, PIECE_S, LONGEST_S = 0.25, 0.001, 0.02  # of the time since the last piece; of the host's clock


class BackgroundSave:
    """The rest of what is saved into `sink`, where all but the memory is written already. `done` has how many bytes
    were written, or a SaveError or DamagedError. Other errors are raised.
    """

    def __init__(self, sink: Sink, engine: Engine, machine: MachineForm, parent: Parent | None) -> None:
        self.done: Future[int] = Future()
        self._sink, self._machine = sink, machine
        self._replaced = list(core_saving.replaced_code(engine.core))
        sink.open_part("ram")
        self._kept = Kept(engine.core)
        ram = self._ram()
        if parent:
            ram, self._machine = parent.changed(ram), parent.child(machine)
        self._pieces = pages.compressed(pages.encode(ram))

    def _ram(self) -> Iterator[tuple[int, bytes]]:
        """Without the traps of sites that had been learned then."""
        for gpa, data in pages.stretches(self._kept.pages, self._kept.read):
            yield gpa, with_code(self._replaced, gpa, data)

    def go_on(self, seconds: float) -> None:
        """For so long, or until all is written: then it is done."""
        until = time.monotonic() + seconds
        try:
            for piece in self._pieces:
                self._sink.write(piece)
                if time.monotonic() >= until:
                    return
            self._sink.close_part()
            written = self._sink.finish(self._machine)
        except DamagedPageError as error:
            self.give_up(SaveError(f"cannot save the machine: the checkpoint was damaged at {error.args[0]:#x}"))
        except MemoryError:
            self.give_up(SaveError("cannot save the machine: no memory to keep what the guest writes meanwhile"))
        except DwcVmmError as error:
            self.give_up(error)
        else:
            self._kept.end()
            self.done.set_result(written)

    def give_up(self, error: DwcVmmError) -> None:
        """What was saved before stays as it is."""
        self._kept.end()
        with suppress(SaveError):  # whoever writes is gone
            self._sink.abandon()
        self.done.set_exception(error)


class BackgroundSaves:
    """Of a machine, one at a time. Its clock stands still while a piece is written."""

    def __init__(self, core: Core, agenda: Agenda, stands: Callable[[], AbstractContextManager[None]]) -> None:
        self._core, self._agenda, self._stands = core, agenda, stands
        self._current: BackgroundSave | None = None
        self._last = 0.0  # piece's end

    def check_none(self) -> None:
        """Raises SaveError while there is one."""
        if self._current:
            raise SaveError("cannot save the machine: it is being saved already")

    def begin(self, save: BackgroundSave) -> Future[int]:
        self._current, self._last = save, time.monotonic()
        self._plan()
        return save.done

    def _plan(self) -> None:
        self._agenda.add(Planned(self._do_more, guest_ns=self._core.guest_ns + EVERY_NS))

    def _do_more(self) -> None:
        if self._current:
            since = time.monotonic() - self._last
            self._go_on(self._current, min(max(PIECE_S, SHARE * since), LONGEST_S))
            self._last = time.monotonic()
            self._plan()

    def finish(self) -> None:
        """Write all that is left."""
        if self._current:
            self._go_on(self._current, math.inf)

    def close(self) -> None:
        if self._current:
            self._current.give_up(SaveError("cannot save the machine: it was closed before all was written"))
            self._current = None

    def _go_on(self, save: BackgroundSave, seconds: float) -> None:
        with self._stands():
            save.go_on(seconds)
        if save.done.done():
            self._current = None
