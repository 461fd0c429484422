"""As much of the ACPI machine language as the DSDT needs (ACPI 6.4, chapter 20)."""

from __future__ import annotations

import struct


def package_length(length: int) -> bytes:
    """PkgLength of a term that is followed by `length` bytes (20.2.4); its own bytes count, too."""
    for extra in range(4):
        total = length + 1 + extra
        if total < (64 if extra == 0 else 1 << (4 + 8 * extra)):
            break
    if extra == 0:
        return bytes([total])
    return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")


def integer(value: int) -> bytes:
    if value in (0, 1):
        return bytes([value])
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise ValueError(f"{value} has more than 64 bits")


def eisa_id(text: str) -> bytes:
    """PNP0501 and the like, as a compressed integer (19.6.34)."""
    letters = [ord(c) - 0x40 for c in text[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return b"\x0c" + struct.pack(">I", value)


def name(path: str, value: bytes) -> bytes:
    return b"\x08" + path.encode() + value


def package(*elements: bytes) -> bytes:
    body = bytes([len(elements)]) + b"".join(elements)  # 255 at most
    return b"\x12" + package_length(len(body)) + body


def buffer(content: bytes) -> bytes:
    body = integer(len(content)) + content
    return b"\x11" + package_length(len(body)) + body


def scope(path: str, *terms: bytes) -> bytes:
    body = path.encode() + b"".join(terms)
    return b"\x10" + package_length(len(body)) + body


def device(segment: str, *terms: bytes) -> bytes:
    body = segment.encode() + b"".join(terms)
    return b"\x5b\x82" + package_length(len(body)) + body


def io_ports(first: int, count: int) -> bytes:
    """A fixed range of ports, decoded by 16 bits (6.4.2.5)."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def _word_range(kind: int, flags: int, first: int, last: int) -> bytes:
    return struct.pack("<BHBBBHHHHH", 0x88, 13, kind, 0xC, flags, 0, first, last, 0, last - first + 1)


def bus_numbers(first: int, last: int) -> bytes:
    """The buses behind a bridge (6.4.3.5.3, type 2), minimum and maximum fixed."""
    return _word_range(2, 0, first, last)


def port_window(first: int, last: int) -> bytes:
    """Ports that a bridge passes on (type 1, the entire range)."""
    return _word_range(1, 3, first, last)


def memory_window(first: int, last: int) -> bytes:
    """Memory that a bridge passes on: not cacheable, writable (6.4.3.5.2, type 0)."""
    return struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0xC, 1, 0, first, last, 0, last - first + 1)


def fixed_memory(first: int, length: int) -> bytes:
    """32-bit fixed memory range, writable (6.4.3.4)."""
    return struct.pack("<BHBII", 0x86, 9, 1, first, length)


def irq(number: int) -> bytes:
    """An ISA interrupt: edge, active high (6.4.2.1)."""
    return struct.pack("<BH", 0x22, 1 << number)


def resources(*descriptors: bytes) -> bytes:
    """A _CRS, with its end tag (6.4.2.9)."""
    return name("_CRS", buffer(b"".join(descriptors) + b"\x79\x00"))
