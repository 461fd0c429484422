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
"""


class Monitor:
    """`save` saves the machine, on its thread. `between` has a function called there, between two elements."""

    def __init__(self, machine: Machine, save: Callable[[], int] | None, between: Callable[..., Any]) -> None:
        self._machine, self._save, self._between = machine, save, between
        self._commands: dict[str, Callable[[], str]] = {
            "help": lambda: HELP,
            "element": lambda: f"{machine.elements}\n",
            "time": lambda: f"{machine.pc.core.guest_ns / 1e9:.9f}\n",
            "divergences": self._divergences,
            "status": lambda: f"{describe(machine.status())}\n",
            "save": self._save_machine,
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

    def _save_machine(self) -> str:
        if not self._save:
            raise TargetError("there is no directory to save the machine in: start it with --save-to")
        return f"saved: {self._between(self._save) / 1e6:.1f} MB\n"
