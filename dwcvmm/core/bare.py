"""For tests: an engine whose replicas never run, for phases and configs; structures by themselves."""

from __future__ import annotations

import mmap
from collections.abc import Container
from dataclasses import replace
from typing import Any

from dwcvmm.core import namedfields
from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.config import Config, ReplicaConfig
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import PAGE, InsnKind, Phase, Strategy
from dwcvmm.core.kvmstructs import RunPage

RUN_PAGE = RunPage(mmap.mmap(-1, PAGE))
RAM = ffi.new("uint8_t[]", PAGE)
NO_VM = 1  # a descriptor that nobody uses


def bare_config(strategy: Strategy = Strategy.OFF, **changes: Any) -> Config:
    """A config that can be; `changes`: fields of Config that are otherwise."""
    ram = int(ffi.cast("uintptr_t", RAM))
    replica = ReplicaConfig(NO_VM, NO_VM, RUN_PAGE, ram)
    config = (
        Config((replica,), PAGE, strategy)
        if strategy is Strategy.OFF
        else Config((replica, replica), PAGE, strategy, checkpoint_ram=ram)
    )
    return replace(config, **changes)


class BareCore(Core):
    """`committed`: elements that count as committed. `changes`: see bare_config."""

    __slots__ = ()

    def __init__(self, committed: int = 0, **changes: Any) -> None:
        super().__init__(bare_config(**changes))
        self._c.stats.committed = committed

    @classmethod
    def with_ram(cls, ram: bytearray) -> BareCore:
        """One whose only replica has this RAM, which the caller keeps."""
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(ram)))
        return cls(replicas=(ReplicaConfig(NO_VM, NO_VM, RUN_PAGE, address),), ram_bytes=len(ram))

    def set_phase(self, to: Phase) -> None:
        """Set the phase as the engine does: an illegal step ends the process."""
        lib.dwc_set_phase(self._c, to)

    def found(self, gpa: int, user: bool, length: int = 2) -> None:
        """As if a search had ended at an RDTSC there."""
        search = self._c.search
        search.gpa, search.user, search.long_mode, search.split = gpa, user, True, False
        search.read.kind, search.read.length = InsnKind.RDTSC, length

    def site(self, number: int) -> tuple[int, bool]:
        """Address of a learned site, and whether it is in ring 3."""
        site = self._c.sites.site[number]
        return int(site.gpa), bool(site.user)

    @property
    def sites_that_exit_by_debug(self) -> int:
        return int(self._c.sites.in_user)


def set_hot_reads(core: Core, reads: int) -> None:
    """Let learned sites be released after so many reads, instead of DWC_HOT_READS."""
    core._c.sites.hot_reads = reads


def named_bytes(ctype: str, leave_out: Container[str] = ()) -> int:
    """How many bytes of a structure are in fields, without padding and fields of these names."""
    return _named_bytes(ffi.typeof(ctype), leave_out)


def _named_bytes(kind: Any, leave_out: Container[str]) -> int:
    if kind.kind == "array":
        return int(kind.length) * _named_bytes(kind.item, leave_out)
    if kind.kind == "struct":
        return sum(_named_bytes(field.type, leave_out) for name, field in kind.fields if name not in leave_out)
    return int(ffi.sizeof(kind))


def document_of(ctype: str, content: bytes, leave_out: Container[str] = ()) -> namedfields.Document:
    """The fields of a structure with this content, as far as that goes."""
    made = ffi.new(f"{ctype} *")
    content = content[: ffi.sizeof(ctype)]
    ffi.buffer(made)[: len(content)] = content
    return namedfields.dump(made, leave_out)


def content_of(ctype: str, document: namedfields.Document) -> bytes:
    """The content of a structure with these fields, and zeros. Raises ValueError."""
    made = ffi.new(f"{ctype} *")
    namedfields.load(made, document)
    return bytes(ffi.buffer(made))


def kept_count(core: Core) -> int:
    """How many pages are kept for a save that goes on (dwcvmm/core/kept.py)."""
    return int(core._c.kept.count)


def upset_kept(core: Core) -> int:
    """Flip a bit in one of them that is not zeros. Returns its guest physical address."""
    kept = core._c.kept
    page = next(kept.pages[place] for place in range(kept.count) if kept.pages[place].data != ffi.NULL)
    page.data[100] ^= 1
    return int(page.page) * PAGE
