"""JSON for people and files: indented, with a newline at its end."""

from __future__ import annotations

from typing import Any

import msgspec


def pretty_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
