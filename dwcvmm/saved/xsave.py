"""The XSAVE area by its parts (SDM 1, 13.4). Where each component is in the area differs between processors, so a
component is saved by its number, and put where the host has it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dwcvmm.core.kvmstructs import CpuidEntry

LEGACY = struct.Struct("<HHBxHQQII")
LEGACY_NAMES = ("fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr", "mxcsr_mask")
ST_AT, ST_BYTES, XMM_AT, SLOT = 32, 10, 160, 16
HEADER_AT, HEADER_BYTES, SOFTWARE_AT = 512, 64, 464
AREA_BYTES = 4096
LEAF, FIRST_COMPONENT = 0xD, 2


class Component(NamedTuple):
    """Where the area has it, in bytes."""

    offset: int
    size: int


def components(cpuid: Iterable[CpuidEntry]) -> dict[int, Component]:
    """Those that user code has (bits of XCR0), by number."""
    found = {leaf.index: leaf for leaf in cpuid if leaf.function == LEAF}
    shown = (found[0].eax | found[0].edx << 32) if 0 in found else 0
    return {
        number: Component(leaf.ebx, leaf.eax)
        for number, leaf in found.items()
        if number >= FIRST_COMPONENT and shown >> number & 1 and leaf.eax
    }


def named(area: bytes, layout: Mapping[int, Component]) -> dict[str, Any]:
    """The parts of an area. Raises ValueError if there is something in it that has no name."""
    parts: dict[str, Any] = dict(zip(LEGACY_NAMES, LEGACY.unpack_from(area), strict=True))
    parts["st"] = [area[at : at + ST_BYTES].hex() for at in range(ST_AT, ST_AT + 8 * SLOT, SLOT)]
    parts["xmm"] = [area[at : at + SLOT].hex() for at in range(XMM_AT, XMM_AT + 16 * SLOT, SLOT)]
    parts["xstate_bv"] = int.from_bytes(area[HEADER_AT : HEADER_AT + 8], "little")
    parts["components"] = {str(number): area[at : at + size].hex() for number, (at, size) in layout.items()}
    if _values(build(parts, layout)) != _values(area):
        raise ValueError("the XSAVE area holds more than CPUID tells of")
    return parts


def _values(area: bytes) -> bytes:
    """Without the bytes that are software's."""
    return area[:SOFTWARE_AT] + area[HEADER_AT:]


def build(parts: Mapping[str, Any], layout: Mapping[int, Component]) -> bytes:
    """The area of these parts. Raises ValueError, or KeyError, if they do not fit."""
    area = bytearray(AREA_BYTES)
    try:
        LEGACY.pack_into(area, 0, *(parts[name] for name in LEGACY_NAMES))
        _fill(area, parts["st"], ST_AT, ST_BYTES, 8)
        _fill(area, parts["xmm"], XMM_AT, SLOT, 16)
        area[HEADER_AT : HEADER_AT + 8] = int(parts["xstate_bv"]).to_bytes(8, "little")
        for number, text in parts["components"].items():
            at, size = layout[int(number)]
            content = bytes.fromhex(text)
            if len(content) != size or at + size > AREA_BYTES:
                raise ValueError(f"component {number}: {len(content)} bytes, and not {size}")
            area[at : at + size] = content
    except (struct.error, OverflowError, TypeError) as error:
        raise ValueError(str(error)) from error
    return bytes(area)


def _fill(area: bytearray, texts: list[str], at: int, size: int, count: int) -> None:
    if len(texts) != count:
        raise ValueError(f"{len(texts)} registers, and not {count}")
    for text in texts:
        content = bytes.fromhex(text)
        if len(content) != size:
            raise ValueError(f"a register of {len(content)} bytes, and not {size}")
        area[at : at + size] = content
        at += SLOT
