"""The commands of gdb's `monitor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dwcvmm.errors import DwcVmmError
from dwcvmm.gdb.target import EndedError, TargetError
from dwcvmm.machine import Machine
from dwcvmm.results.statustext import describe


class Command(NamedTuple):
    about: str
    answer: Callable[[], str]


class Monitor:
    """`commands`: by name, besides `help`."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = {"help": Command("this", self._help), **commands}

    def _help(self) -> str:
        width = max(map(len, self._commands))
        return "".join(f"{name:{width}}  {command.about}\n" for name, command in self._commands.items())

    def answer(self, words: str) -> str:
        """Raises TargetError, or EndedError."""
        command = self._commands.get(words.strip())
        if not command:
            raise TargetError(f"{words.strip()!r} is none of {', '.join(self._commands)}")
        try:
            return command.answer()
        except (TargetError, EndedError):
            raise
        except DwcVmmError as error:
            raise TargetError(str(error)) from error


def of_machine(
    machine: Machine,
    between: Callable[..., Any],
    save: Callable[[], int] | None,
    dump: Callable[[], int] | None,
) -> dict[str, Command]:
    """`save` saves the machine, on its thread, and `dump` dumps it. `between` has a function called there, between two
    elements.
    """

    def divergences() -> str:
        counts = machine.result().divergences
        return "".join(f"{cause} {count}\n" for cause, count in counts.items()) or "none\n"

    def write(job: Callable[[], int] | None, done: str, why_not: str) -> str:
        if not job:
            raise TargetError(why_not)
        return f"{done}: {between(job) / 1e6:.1f} MB\n"

    no_directory = "there is no directory to save the machine in: --save-to names it"
    no_file = "there is no file to dump the machine in: --dump-to names it"
    return {
        "element": Command("how many elements are committed", lambda: f"{machine.elements}\n"),
        "time": Command("the guest's clock, in seconds", lambda: seconds(machine.pc.core.guest_ns)),
        "divergences": Command("how many there were, by cause", divergences),
        "status": Command("figures of the run", lambda: f"{describe(machine.status())}\n"),
        "save": Command(
            "save the machine in the directory of run --save-to", lambda: write(save, "saved", no_directory)
        ),
        "dump": Command("write a core dump into the file of run --dump-to", lambda: write(dump, "dumped", no_file)),
    }


def seconds(ns: int) -> str:
    return f"{ns / 1e9:.9f}\n"
