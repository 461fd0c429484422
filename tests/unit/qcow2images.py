"""qcow2 images made by hand: a header, tables, content (QEMU, docs/interop/qcow2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from dwcvmm.pc.devices.disk.qcow2header import COMPRESSION, Qcow2Header

# fields and their sizes in bytes, in the header's order
FIELDS = {
    "version": 4, "backing_offset": 8, "backing_bytes": 4, "cluster_bits": 4, "size": 8, "crypt": 4, "l1_entries": 4,
    "l1_offset": 8, "refcounts_offset": 8, "refcounts_clusters": 4, "snapshots": 4, "snapshots_offset": 8,
    "incompatible": 8, "compatible": 8, "autoclear": 8, "refcount_order": 4, "header_length": 4, "compression": 1,
}  # fmt: skip
NAMED_AT = 112


class Image:
    """A whole one, until a test changes `fields`: header, L1 table, reference counts, an L2 table, a cluster each."""

    def __init__(self, name: bytes = b"base.img", **fields: int) -> None:
        bits, size = fields.get("cluster_bits", 16), fields.get("size", 1 << 20)
        self.cluster, self.name = 1 << bits, name
        entries = -(-size // (self.cluster * self.cluster // 8))
        l1_clusters = -(-entries * 8 // self.cluster)
        self.fields = dict.fromkeys(FIELDS, 0) | {
            "version": 3, "cluster_bits": bits, "size": size, "l1_entries": entries, "l1_offset": self.cluster,
            "refcounts_offset": (1 + l1_clusters) << bits, "refcounts_clusters": 1, "refcount_order": 4,
            "header_length": 112,
        } | fields  # fmt: skip
        self.level2 = (2 + l1_clusters) << bits
        self.file_bytes = self.level2 + 2 * self.cluster

    @property
    def head(self) -> bytes:
        """The header, and at byte 112 the name of a backing file if there is one, else no extensions."""
        parts = [self.fields[name].to_bytes(size, "big") for name, size in FIELDS.items()]
        name = self.name if self.fields["backing_offset"] else b""
        return (b"QFI\xfb" + b"".join(parts)).ljust(NAMED_AT, b"\0") + name.ljust(4096, b"\0")

    def write(self, path: Path, level2: Sequence[int] = (), length: int = 0) -> None:
        """A file of `length` bytes (default: all), 0xAA behind the L2 table whose first entries are given."""
        with path.open("wb") as file:
            file.write(self.head[: NAMED_AT if self.cluster < 4096 else None])
            if level2:
                file.seek(self.fields["l1_offset"])
                file.write(struct.pack(">Q", 1 << 63 | self.level2))
                file.seek(self.level2)
                file.write(struct.pack(f">{len(level2)}Q", *level2).ljust(self.cluster, b"\0"))
                file.write(b"\xaa" * max(0, length - file.tell()))
            file.truncate(length or self.file_bytes)


def check_promises(header: Qcow2Header, file_bytes: int) -> None:
    """What holds of every header that passes the check, for an image of so many bytes."""
    cluster = 1 << header.cluster_bits
    assert 9 <= header.cluster_bits <= 21
    assert 0 < header.size_bytes < 1 << 63
    assert header.l1_entries * (cluster // 8) * cluster >= header.size_bytes
    assert header.l1_entries * 8 <= 32 << 20
    assert header.l1_offset % cluster == 0
    assert (
        cluster <= header.l1_offset <= header.l1_offset + header.l1_entries * 8 <= -(-file_bytes // cluster) * cluster
    )
    plain = struct.unpack_from(">4sIQIIQIIQQIIQ", header.plain())
    assert plain[:5] == (b"QFI\xfb", 3, 0, 0, header.cluster_bits), "no backing file"
    assert plain[6] == 0, "no key"
    assert struct.unpack_from(">Q", header.plain(), 72)[0] == (COMPRESSION if header.zstd else 0)
