"""What gdb's thread asks of a guest is done on that guest's thread, and waited for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.gdb.target import EndedError, TargetError
from dwcvmm.guest.memory import GuestMemoryError
from dwcvmm.saved.folder import SaveError

T = TypeVar("T")
LOOK_S = 0.05  # between two looks whether the server is to end, while the guest is waited for


def wait_for(done: Future[T], closing: Callable[[], bool], has_ended: Callable[[], bool]) -> T:
    """The result of a job. Raises as Target's methods do; EndedError also if the server is to end."""
    try:
        while True:
            try:
                return done.result(LOOK_S)
            except FutureTimeout:
                if closing():
                    raise EndedError("the run is over") from None
    except MachineStateError as error:
        raise EndedError(str(error)) if has_ended() else TargetError(str(error)) from error
    except (TargetError, EndedError):
        raise
    except (ConfigError, GuestMemoryError, SaveError) as error:
        raise TargetError(str(error)) from error
