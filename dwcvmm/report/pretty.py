"""JSON for people and files: indented, with a newline at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from dwcvmm.files import read_file, write_failure

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what decoding raises
MOST_JSON_BYTES = 256 << 20


def pretty_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def printable(text: str) -> str:
    """A text as JSON can hold it: what is no UTF-8 in a file's name or an argument is shown by its number."""
    return text.encode(errors="backslashreplace").decode()


def read_json_file(path: Path) -> bytes:
    """The bytes of a result file. Raises ConfigError."""
    return read_file(path, MOST_JSON_BYTES, "no result file is as large")


def write_json(path: Path, document: Any) -> None:
    """Write a document for people and tools. Raises ConfigError or HostError if it cannot be written."""
    try:
        path.write_bytes(pretty_json(document))
    except OSError as error:
        raise write_failure("the result", path, error) from error
