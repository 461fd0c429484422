"""Whether a host can go on with a saved guest: it must have all that the guest has been shown of a processor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dwcvmm.core.kvmstructs import CpuidEntry
from dwcvmm.saved.xsave import components

# leaves and registers that are made of features, a bit each (SDM 2A, CPUID; APM 3, E.3 and E.4), without the bits that
# follow the guest's own registers: OSXSAVE, OSPKE, and APIC
FEATURES = {
    (0x1, 0, "ecx"): ~(1 << 27),
    (0x1, 0, "edx"): ~(1 << 9),
    **{(0x7, 0, register): ~0 for register in ("ebx", "edx")},
    (0x7, 0, "ecx"): ~(1 << 4),
    **{(0x7, index, register): ~0 for index in (1, 2) for register in ("eax", "ebx", "ecx", "edx")},
    (0xD, 0, "eax"): ~0,
    (0xD, 0, "edx"): ~0,
    (0xD, 1, "eax"): ~0,
    (0x80000001, 0, "ecx"): ~0,
    (0x80000001, 0, "edx"): ~(1 << 9),
    (0x80000007, 0, "edx"): ~0,
    (0x80000008, 0, "ebx"): ~0,
    (0x80000021, 0, "eax"): ~0,
}
VENDOR, ADDRESS_SIZES, WIDTH = 0x0, 0x80000008, 0xFF


def differences(
    saved: Collection[CpuidEntry], here: Collection[CpuidEntry], msrs: Iterable[int], msrs_here: Collection[int]
) -> list[str]:
    """What the guest was shown and this host does not have, as texts. Both CPUIDs are as guests see them."""
    return [
        *_vendor(saved, here),
        *_features(saved, here),
        *_address_width(saved, here),
        *_xsave(saved, here),
        *(f"MSR {index:#x}" for index in msrs if index not in msrs_here),
    ]


def _register(leaves: Iterable[CpuidEntry], function: int, index: int, register: str) -> int:
    found = (leaf for leaf in leaves if (leaf.function, leaf.index) == (function, index))
    return next((int(getattr(leaf, register)) for leaf in found), 0)


def _vendor_name(leaves: Collection[CpuidEntry]) -> str:
    registers = (_register(leaves, VENDOR, 0, name) for name in ("ebx", "edx", "ecx"))
    return b"".join(value.to_bytes(4, "little") for value in registers).decode("ascii", "replace").rstrip("\0")


def _vendor(saved: Collection[CpuidEntry], here: Collection[CpuidEntry]) -> Iterator[str]:
    was, is_ = _vendor_name(saved), _vendor_name(here)
    if was != is_:
        yield f"a processor of {was}, and this is one of {is_}"


def _features(saved: Collection[CpuidEntry], here: Collection[CpuidEntry]) -> Iterator[str]:
    for (function, index, register), mask in FEATURES.items():
        missing = _register(saved, function, index, register) & mask & ~_register(here, function, index, register)
        for bit in range(32):
            if missing >> bit & 1:
                yield f"CPUID {function:#x}.{index} {register} bit {bit}"


def _address_width(saved: Collection[CpuidEntry], here: Collection[CpuidEntry]) -> Iterator[str]:
    was, is_ = (_register(leaves, ADDRESS_SIZES, 0, "eax") & WIDTH for leaves in (saved, here))
    if was > is_:
        yield f"physical addresses of {was} bits, and this host has {is_}"


def _xsave(saved: Iterable[CpuidEntry], here: Iterable[CpuidEntry]) -> Iterator[str]:
    """A guest knows where its components are, and the processor puts them where it has them."""
    layout = components(here)
    for number, component in components(saved).items():
        if layout.get(number) not in (None, component):
            yield f"XSAVE component {number} at {component.offset}, and this host has it at {layout[number].offset}"
