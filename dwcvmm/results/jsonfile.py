"""JSON for people and files: indented, with a newline at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from dwcvmm.files import read_file, write_failure

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what decoding raises
MOST_JSON_BYTES = 256 << 20


def json_bytes(value: Any) -> bytes:
    """JSON on one line. A byte of a name or argument that is not UTF-8 (PEP 383) is written as `\\udcff`."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(readable(msgspec.to_builtins(value)))


def readable(value: Any) -> Any:
    """A document of lists and dictionaries, with all text made valid UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {readable(key): readable(each) for key, each in value.items()}
    return [readable(each) for each in value] if isinstance(value, list | tuple) else value


def pretty_json(value: Any) -> bytes:
    return msgspec.json.format(json_bytes(value), indent=2) + b"\n"


def read_json_file(path: Path) -> bytes:
    """The bytes of a result file. Raises ConfigError."""
    return read_file(path, MOST_JSON_BYTES, "no result file is as large")


def write_json(path: Path, document: Any) -> None:
    """Write a document for people and tools. Raises ConfigError or HostError if it cannot be written."""
    try:
        path.write_bytes(pretty_json(document))
    except OSError as error:
        raise write_failure("the result", path, error) from error
