"""`--events FILE`: one JSON object a line, written as things happen. Every event has `event` and `guest_ns`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dwcvmm.element.divergence import Divergence
from dwcvmm.files import open_output, write_failure
from dwcvmm.results.jsonfile import json_bytes
from dwcvmm.streams import write_all


class EventLog:
    """Writes events to a file; without a path it drops them. `over`: whether to stop waiting for a slow reader.

    Raises ConfigError or HostError if the file cannot be written.
    """

    def __init__(self, path: Path | None, over: Callable[[], bool] = lambda: False) -> None:
        self._path, self._over = path, over
        self._file = os.fdopen(open_output(path, "events", os.O_TRUNC), "wb", buffering=0) if path else None

    def write(self, event: str, guest_ns: int, **fields: Any) -> None:
        if self._file and self._path:
            line = json_bytes({"event": event, "guest_ns": guest_ns, **fields}) + b"\n"
            try:
                write_all(self._file.fileno(), line, self._over)
            except OSError as error:
                raise write_failure("events", self._path, error) from error

    def divergence(self, record: Divergence, guest_ns: int) -> None:
        self.write("divergence", guest_ns, **asdict(record))

    def close(self) -> None:
        if self._file:
            self._file.close()
