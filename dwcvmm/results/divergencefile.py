"""The file of a kept divergence, `dwcvmm-divergence/1`: both replicas and the checkpoint.

A line with the schema, then MessagePack in zlib's format, whose checksum reveals damage. Decoding is strict (`load`).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from dwcvmm.core.enums import PAGE
from dwcvmm.errors import ConfigError
from dwcvmm.files import read_file
from dwcvmm.results.jsonfile import NOT_JSON, readable
from dwcvmm.results.reportfile import GuestFacts, HostFacts

SCHEMA = "dwcvmm-divergence/1"
FAMILY = b"dwcvmm-divergence/"
XSAVE_BYTES = 4096
RUNNING = "still running"  # instead of an exit, if the other replica ended long before
MAX_PAGES = 1024  # that are kept, of those that differ
MOST_BYTES = 1 << 26  # unpacked; several times what MAX_PAGES need

U64 = Annotated[int, msgspec.Meta(ge=0)]
PageBytes = Annotated[bytes, msgspec.Meta(min_length=PAGE, max_length=PAGE)]
XsaveBytes = Annotated[bytes, msgspec.Meta(min_length=XSAVE_BYTES, max_length=XSAVE_BYTES)]


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Registers of all groups by name: "rax", "cs.base", "cr3", "msr:0xc0000082", "dr7", "events.nmi.pending"."""

    registers: dict[str, U64]
    xsave: XsaveBytes  # standard format (SDM vol. 1 13.4)


class Exit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `struct dwc_exit`. Fields that this reason does not use are zero."""

    reason: str  # as dwcvmm.kvm.exits has it, or RUNNING
    is_write: bool
    port: U64
    gpa: U64  # of memory-mapped I/O; the index of an MSR
    size: U64  # bytes an item
    count: U64
    info: U64
    data: bytes


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one replica showed at the end of its run. `code` starts at the linear address `code_at`."""

    state: State
    exit: Exit
    cpu: int  # -1: not bound to one
    linear_rip: U64
    code_bits: Annotated[int, msgspec.Meta(ge=16, le=64)]
    code_at: U64
    code: bytes


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The three copies of a page that differs between the replicas."""

    gpa: U64
    logged: bool  # in a dirty log
    a: PageBytes
    b: PageBytes
    checkpoint: PageBytes


class KeptDivergence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`before`: registers as the last committed element left them; groups that cost an ioctl as in the checkpoint.

    The checkpoint is `since_checkpoint` elements older than the last committed element; pages are compared with it.
    """

    version: str
    command: str  # the command that repeats the run
    directory: str  # where it was given
    strategy: str
    host: HostFacts
    guest: GuestFacts
    cause: str
    element: U64  # committed before it
    attempt: U64  # 1: its first run
    groups: list[str]
    detail: dict[str, Any]  # as in the events
    fault: str | None
    vector: int | None  # injected at the start of the element
    since_checkpoint: U64
    before: State
    runs: tuple[Run, Run]  # e1 on replica A, e2 on replica B
    pages: list[Page]
    pages_differ: U64  # all of them, kept or not
    wrong: list[Literal["A", "B"]] | None = None  # that showed other than what was committed; null: not known


def encode(kept: KeptDivergence) -> bytes:
    try:
        plain = msgspec.msgpack.encode(kept)
    except UnicodeEncodeError:
        plain = msgspec.msgpack.encode(readable(msgspec.to_builtins(kept, builtin_types=(bytes,))))
    return SCHEMA.encode() + b"\n" + zlib.compress(plain, 9)


def load(path: Path) -> KeptDivergence:
    """Read a kept divergence. Raises ConfigError, with the reason, if it is not one or is incomplete."""
    content = read_file(path, MOST_BYTES, f"no {SCHEMA} is as large")
    if not content:
        raise ConfigError(f"{path} is empty: no divergence was kept")
    header, _, packed = content.partition(b"\n")
    if header != SCHEMA.encode():
        if header.startswith(FAMILY) and len(header) < 2 * len(SCHEMA):
            raise ConfigError(f"{path} has schema {header.decode(errors='replace')}, not {SCHEMA}")
        raise ConfigError(f"{path} is not a {SCHEMA}: it was not written by dwcvmm run --keep-divergence")
    return _decode(path, packed)


def _decode(path: Path, packed: bytes) -> KeptDivergence:
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, MOST_BYTES)
        if not unpacker.eof:
            what = "is too large" if unpacker.unconsumed_tail else "is truncated"
            raise ConfigError(f"{path} {what}: no whole {SCHEMA}")
        if unpacker.unused_data:
            raise ConfigError(f"{path} is damaged: there is more after its end")
        return msgspec.msgpack.decode(plain, type=KeptDivergence)
    except zlib.error as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    except NOT_JSON as error:
        raise ConfigError(f"{path} is not a {SCHEMA}: {error}") from error
