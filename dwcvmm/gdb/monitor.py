"""The commands of gdb's `monitor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dwcvmm.errors import DwcVmmError
from dwcvmm.gdb.target import EndedError, TargetError
from dwcvmm.machine import Machine
from dwcvmm.results.statustext import describe

HELP = """\
help         this
element      how many elements are committed
time         the guest's clock, in seconds
divergences  how many there were, by cause
status       figures of the run
save         save the machine in the directory of run --save-to
dump         write a core dump into the file of run --dump-to
"""


class Monitor:
    """`save` saves the machine, on its thread, and `dump` dumps it. `between` has a function called there, between two
    elements.
    """

    def __init__(
        self,
        machine: Machine,
        between: Callable[..., Any],
        save: Callable[[], int] | None,
        dump: Callable[[], int] | None,
    ) -> None:
        self._machine, self._between = machine, between
        self._commands: dict[str, Callable[[], str]] = {
            "help": lambda: HELP,
            "element": lambda: f"{machine.elements}\n",
            "time": lambda: f"{machine.pc.core.guest_ns / 1e9:.9f}\n",
            "divergences": self._divergences,
            "status": lambda: f"{describe(machine.status())}\n",
            "save": lambda: self._write(
                save, "saved", "there is no directory to save the machine in: --save-to names it"
            ),
            "dump": lambda: self._write(dump, "dumped", "there is no file to dump the machine in: --dump-to names it"),
        }

    def answer(self, words: str) -> str:
        """Raises TargetError, or EndedError."""
        command = self._commands.get(words.strip())
        if not command:
            raise TargetError(f"{words.strip()!r} is none of {', '.join(self._commands)}")
        try:
            return command()
        except (TargetError, EndedError):
            raise
        except DwcVmmError as error:
            raise TargetError(str(error)) from error

    def _divergences(self) -> str:
        counts = self._machine.result().divergences
        return "".join(f"{cause} {count}\n" for cause, count in counts.items()) or "none\n"

    def _write(self, job: Callable[[], int] | None, done: str, why_not: str) -> str:
        if not job:
            raise TargetError(why_not)
        return f"{done}: {self._between(job) / 1e6:.1f} MB\n"
