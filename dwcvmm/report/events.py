"""`--events FILE`: one JSON object a line, as things happen. Every event has `event` and `guest_ns`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dwcvmm.element.divergence import Divergence
from dwcvmm.errors import ConfigError
from dwcvmm.report.pretty import json_bytes


class EventLog:
    """Writes to a file; without a path it swallows events."""

    def __init__(self, path: Path | None) -> None:
        try:
            self._file = path.open("wb", buffering=0) if path else None
        except OSError as error:
            raise ConfigError(f"cannot write events to {path}: {error.strerror}") from error

    def write(self, event: str, guest_ns: int, **fields: Any) -> None:
        if self._file:
            self._file.write(json_bytes({"event": event, "guest_ns": guest_ns, **fields}) + b"\n")

    def divergence(self, record: Divergence, guest_ns: int) -> None:
        self.write("divergence", guest_ns, **asdict(record))

    def close(self) -> None:
        if self._file:
            self._file.close()
