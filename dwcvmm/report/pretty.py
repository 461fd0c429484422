"""JSON for people and files: indented, with a newline at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from dwcvmm.errors import ConfigError

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError)  # what decoding raises


def pretty_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def write_json(path: Path, document: Any) -> None:
    """Write a document for people and tools. Raises ConfigError if it cannot be written."""
    try:
        path.write_bytes(pretty_json(document))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
