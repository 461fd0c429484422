"""C structures as documents: numbers by the names of their fields, structures within as documents, arrays as lists.
What is saved of a machine is made of them, so that it says what it holds, and does not depend on how C lays it out.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from dwcvmm.core._binding import CData, ffi

Document = dict[str, Any]


def dump(struct: CData, leave_out: Container[str] = ()) -> Document:
    """All fields of a structure, those within others as well, without those of these names."""
    return {name: _dumped(getattr(struct, name), leave_out) for name in names(struct, leave_out)}


def names(struct: CData, leave_out: Container[str] = ()) -> list[str]:
    """Names of a structure's fields."""
    kind = ffi.typeof(struct)
    fields = (kind.item if kind.kind == "pointer" else kind).fields
    return [name for name, _ in fields if name not in leave_out]


def _dumped(value: Any, leave_out: Container[str]) -> Any:
    if not isinstance(value, ffi.CData):
        return int(value)
    if ffi.typeof(value).kind == "array":
        return [_dumped(each, leave_out) for each in value]
    return dump(value, leave_out)


def load(struct: CData, document: Mapping[str, Any], leave_out: Container[str] = ()) -> None:
    """Set all fields from what `dump` has made. Raises ValueError, which names the field, for anything else."""
    wanted = names(struct, leave_out)
    if not isinstance(document, Mapping) or set(wanted) != set(document):
        raise ValueError(f"not the fields {', '.join(wanted)}")
    for name in wanted:
        _set(struct, name, document[name], leave_out)


def _set(holder: CData, at: str | int, value: Any, leave_out: Container[str]) -> None:
    now = getattr(holder, at) if isinstance(at, str) else holder[at]
    try:
        if not isinstance(now, ffi.CData):
            if type(value) is not int:
                raise ValueError("not a whole number")
            if isinstance(at, str):
                setattr(holder, at, value)
            else:
                holder[at] = value
        elif ffi.typeof(now).kind == "array":
            if not isinstance(value, list) or len(value) != len(now):
                raise ValueError(f"not {len(now)} values")
            for index, each in enumerate(value):
                _set(now, index, each, leave_out)
        else:
            load(now, value, leave_out)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{at}: {error}") from None
