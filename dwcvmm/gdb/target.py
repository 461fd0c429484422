"""What a conversation needs of a guest. One that is replayed can also go backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from dwcvmm.core.debugging import Point
from dwcvmm.errors import DwcVmmError
from dwcvmm.gdb.registers import Registers

INTERRUPTED, TRAPPED = 2, 5  # SIGINT and SIGTRAP, as gdb numbers signals


class TargetError(DwcVmmError):
    """The target refuses something; the guest is as it was."""


class EndedError(DwcVmmError):
    """The guest has ended."""


class Way(Enum):
    """How to go on."""

    CONTINUE = auto()
    STEP = auto()
    BACK = auto()
    STEP_BACK = auto()


@dataclass(frozen=True)
class Stop:
    """The guest stands. `signal`: the reason that gdb is told; `point`: the point that it has met, and `software`: that
    is a software breakpoint. `text`: a remark for the user. `at_start`, `at_end`: of a recording, beyond which its
    replay cannot go.
    """

    signal: int = TRAPPED
    point: Point | None = None
    software: bool = False
    text: str = ""
    at_start: bool = False
    at_end: bool = False


@dataclass(frozen=True)
class Ended:
    """The guest has ended, with the exit code of its run."""

    code: int


class Target(Protocol):
    """All methods raise TargetError, or EndedError once the guest has ended."""

    @property
    def reverses(self) -> bool:
        """Whether it can go backwards."""

    @property
    def has_avx(self) -> bool: ...

    def attach(self) -> None:
        """A debugger has come: let the guest stand."""

    def release(self) -> None:
        """It has gone: forget its points, and let the guest go on."""

    def registers(self) -> Registers: ...

    def set_registers(self, registers: Registers) -> None: ...

    def read(self, linear: int, length: int) -> bytes:
        """Fewer bytes, if no RAM is mapped behind them."""

    def write(self, linear: int, data: bytes) -> None: ...

    def insert(self, point: Point, software: bool) -> None: ...

    def remove(self, point: Point) -> None: ...

    def go(self, way: Way) -> Stop | None:
        """None: it goes on, and `why` can be asked when `changed` (a property of the target) has been called."""

    def interrupt(self) -> None:
        """Let the guest stand soon, if it goes on."""

    def why(self) -> Stop | Ended | None:
        """Why the guest stands now, after it has gone on; None: it goes on."""

    def monitor(self, words: str) -> str:
        """A command of `monitor`, and its answer."""

    def kill(self) -> None:
        """End the guest."""


class Served(Target, Protocol):
    """A target with a server. `changed`: is called, from any thread, when `why` may have an answer. `closing`: whether
    to give up waiting for the guest.
    """

    changed: Callable[[], None]
    closing: Callable[[], bool]
