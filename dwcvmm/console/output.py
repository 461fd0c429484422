"""The guest's console output. A slow reader is waited for, except when the run is about to end."""

from __future__ import annotations

from collections.abc import Callable

from dwcvmm.files import write_failure
from dwcvmm.streams import write_all


class Output:
    """Output to a file descriptor, or None. `name`, `what`: of it, for errors. `over`: whether to stop waiting for a
    slow reader. `on_closed` is called when the reader is gone.
    """

    def __init__(self, fd: int | None, name: str, over: Callable[[], bool], what: str = "the console") -> None:
        self._fd, self._name, self._over, self._what = fd, name, over, what
        self.on_closed: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        """Raises HostError if the descriptor takes no more (a full disk)."""
        if self._fd is None:
            return
        try:
            write_all(self._fd, data, self._over)
        except BrokenPipeError:
            self._fd = None
            if self.on_closed:
                self.on_closed()
        except OSError as error:
            raise write_failure(self._what, self._name, error) from error
