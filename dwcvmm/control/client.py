"""A client of a control socket, for the commands `dwcvmm ctl` and `dwcvmm top`."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, Self

import msgspec

from dwcvmm.control.messages import Splitter, TooLongError
from dwcvmm.control.qmp import GENERIC, NEGOTIATE, RefusedError
from dwcvmm.errors import HostError

ANSWER_S = 10.0  # that an answer may take
PIECE = 1 << 16
MOST_BYTES = 4 << 20  # of a report


class Client:
    """Connected and negotiated. A context manager. Raises HostError if nobody is there, or no longer.

    `events`: those that have come so far, in order.
    """

    def __init__(self, path: Path, answer_s: float = ANSWER_S) -> None:
        self._path, self._answer_s = path, answer_s
        self._splitter, self._messages = Splitter(MOST_BYTES), list[bytes]()
        self.events: list[dict[str, Any]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(answer_s)
            try:
                self._socket.connect(str(path))
            except OSError as error:
                raise HostError(
                    f"no machine listens at {path}: {error.strerror or error}", "start one with run --control"
                ) from error
            if "QMP" not in self._receive(time.monotonic() + answer_s):
                raise HostError(f"{path} does not speak QMP")
            self.execute(NEGOTIATE)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Returns the answer; names of arguments have `_` for `-`. Raises RefusedError."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._socket.sendall(msgspec.json.encode(message) + b"\n")
        except OSError as error:
            raise self._lost(error) from error
        until = time.monotonic() + self._answer_s
        while True:
            answer = self._receive(until)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise RefusedError(answer["error"].get("desc", ""), answer["error"].get("class", GENERIC))
            else:
                return answer.get("return")

    def wait_for_events(self, seconds: float | None) -> bool:
        """Wait for more `events`. Returns False when the machine has gone; None: however long it takes."""
        until = None if seconds is None else time.monotonic() + seconds
        try:
            self.events.append(self._receive(until))
        except TimeoutError:
            return True
        except HostError:
            return False
        return True

    def _receive(self, until: float | None) -> dict[str, Any]:
        """The next message. Raises TimeoutError, which is a HostError for who waits for an answer."""
        while not self._messages:
            self._socket.settimeout(None if until is None else max(0.001, until - time.monotonic()))
            try:
                data = self._socket.recv(PIECE)
            except TimeoutError as error:
                raise SilentError(f"the machine at {self._path} does not answer") from error
            except OSError as error:
                raise self._lost(error) from error
            if not data:
                raise self._lost(None)
            try:
                self._messages += self._splitter.feed(data)
            except TooLongError as error:
                raise HostError(f"{self._path} does not speak QMP: {error}") from error
        try:
            message = msgspec.json.decode(self._messages.pop(0))
        except msgspec.DecodeError as error:
            raise HostError(f"{self._path} does not speak QMP: {error}") from error
        return message if isinstance(message, dict) else {}

    def _lost(self, error: OSError | None) -> HostError:
        return HostError(f"the machine at {self._path} has gone" + (f": {error.strerror}" if error else ""))


class SilentError(HostError, TimeoutError):
    """No answer in time."""

    def __init__(self, message: str) -> None:
        HostError.__init__(self, message)
