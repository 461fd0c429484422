"""The header of a qcow2 image, checked as a whole before it is used (QEMU, docs/interop/qcow2).

Images that need more than tables and compressed clusters are refused, with the reason: another file (backing, external
data), a key, subclusters, unknown features; also tables that are outside the file or do not fit the size.
"""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from dwcvmm.pc.devices.disk.base import DiskError, whole_sectors
from dwcvmm.pc.devices.disk.formats import QCOW2

FIELDS = struct.Struct(">4sIQIIQIIQQIIQ")
MORE_FIELDS = struct.Struct(">QQQII")  # of version 3
V2_BYTES = FIELDS.size
V3_BYTES = FIELDS.size + MORE_FIELDS.size
COMPRESSION_TYPE = V3_BYTES  # its offset, in longer headers
HEADER_BYTES = 4096  # how much of the file is examined
LEAST_CLUSTER_BITS, MOST_CLUSTER_BITS = 9, 21  # QEMU's: 512 bytes to 2 MiB
MOST_TABLE_BYTES, MOST_REFCOUNT_BYTES = 32 << 20, 8 << 20  # QEMU's: QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE
MOST_SNAPSHOTS, LEAST_SNAPSHOT_BYTES = 65536, 40  # QEMU's; an entry's without its names
MOST_NAME_BYTES = 1023
ENTRY_BYTES = 8
ZLIB, ZSTD = 0, 1
CRYPT = {1: "AES", 2: "LUKS"}

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))  # incompatible features
# remedies
CHECK = "qemu-img check -r all {file} may repair it"
CONVERT = "qemu-img convert -O qcow2 {file} new.qcow2 makes one without"
RESIZE = "qemu-img resize {file} SIZE makes it larger"
FETCH = "fetch or copy it again"
AS_RAW = "without format=qcow2 it is looked at"
FEATURES = {
    DIRTY: ("was not closed in order (its dirty bit is set)", CHECK),
    CORRUPT: ("is marked as corrupt", CHECK),
    DATA_FILE: ("has an external data file", CONVERT),
    EXTENDED_L2: ("has extended L2 entries", CONVERT),
}


@dataclass(frozen=True)
class Qcow2Header:
    """What a reader needs. Offsets and sizes in bytes; the L1 table covers `size_bytes` and lies in the file."""

    cluster_bits: int
    size_bytes: int
    l1_offset: int
    l1_entries: int
    zstd: bool

    def plain(self) -> bytes:
        """A header of version 3 with these values and nothing else: no extensions, no other tables."""
        fields = FIELDS.pack(
            *(QCOW2, 3, 0, 0, self.cluster_bits, whole_sectors(self.size_bytes), 0),
            *(self.l1_entries, self.l1_offset, 0, 0, 0, 0),
        )
        more = MORE_FIELDS.pack(COMPRESSION if self.zstd else 0, 0, 0, 4, V3_BYTES + 8)
        no_extensions = bytes(8)
        return fields + more + bytes([ZSTD if self.zstd else ZLIB]).ljust(8, b"\0") + no_extensions


def parse(path: Path, head: bytes, file_bytes: int) -> Qcow2Header:
    """`head`: the file's first HEADER_BYTES, or all of it. Raises DiskError for an image that cannot be read."""
    return _Parser(path, head, file_bytes).parse()


class _Fields(NamedTuple):
    """The fields of FIELDS."""

    magic: bytes
    version: int
    backing_offset: int
    backing_bytes: int
    cluster_bits: int
    size: int
    crypt: int
    l1_entries: int
    l1_offset: int
    refcounts_offset: int
    refcounts_clusters: int
    snapshots: int
    snapshots_offset: int


class _Parser:
    def __init__(self, path: Path, head: bytes, file_bytes: int) -> None:
        self._path, self._head, self._file_bytes = path, head, file_bytes

    def _need(self, condition: bool, text: str, remedy: str = CHECK) -> None:
        if not condition:
            self._refuse(text, remedy)

    def _refuse(self, text: str, remedy: str = CHECK) -> NoReturn:
        help_ = remedy.format(file=shlex.quote(str(self._path)))
        raise DiskError(self._path, f"this qcow2 image {text}{': ' if remedy else ''}{help_}")

    def parse(self) -> Qcow2Header:
        self._need(self._head.startswith(QCOW2), "does not start as one", AS_RAW)
        self._need(len(self._head) >= V2_BYTES, f"ends within its header, at byte {len(self._head)}", FETCH)
        fields = _Fields._make(FIELDS.unpack_from(self._head))
        self._need(fields.version in (2, 3), f"is of version {fields.version}, not 2 or 3", "")
        bits = fields.cluster_bits
        in_bounds = LEAST_CLUSTER_BITS <= bits <= MOST_CLUSTER_BITS
        self._need(in_bounds, f"has clusters of 2^{bits} bytes, not 2^9 to 2^21", "")
        self._cluster = 1 << bits
        zstd = self._parse_version_3() if fields.version == 3 else False
        if fields.crypt:
            self._refuse(f"is encrypted ({CRYPT.get(fields.crypt, f'method {fields.crypt}')})", CONVERT)
        self._check_backing(fields.backing_offset, fields.backing_bytes)
        self._check_size(fields.size, fields.l1_entries)
        self._check_table("L1 table", fields.l1_offset, fields.l1_entries * ENTRY_BYTES, MOST_TABLE_BYTES)
        self._need(fields.refcounts_clusters > 0, "has no reference counts")
        refcounts_bytes = fields.refcounts_clusters << bits
        self._check_table("table of reference counts", fields.refcounts_offset, refcounts_bytes, MOST_REFCOUNT_BYTES)
        self._need(fields.snapshots <= MOST_SNAPSHOTS, f"has {fields.snapshots} snapshots, more than {MOST_SNAPSHOTS}")
        if fields.snapshots:
            length = fields.snapshots * LEAST_SNAPSHOT_BYTES
            self._check_table("table of snapshots", fields.snapshots_offset, length, length)
        return Qcow2Header(bits, fields.size, fields.l1_offset, fields.l1_entries, zstd)

    def _parse_version_3(self) -> bool:
        """Check what only version 3 has. Returns whether clusters are compressed by zstd."""
        self._need(len(self._head) >= V3_BYTES, f"ends within its header, at byte {len(self._head)}", FETCH)
        incompatible, _, _, refcount_order, length = MORE_FIELDS.unpack_from(self._head, V2_BYTES)
        fits = V3_BYTES <= length <= self._cluster and length % 8 == 0
        self._need(fits, f"has a header of {length} bytes, not {V3_BYTES} to a cluster in steps of 8", "")
        for feature, (text, remedy) in FEATURES.items():
            self._need(not incompatible & feature, text, remedy)
        if unknown := incompatible & ~(sum(FEATURES) | COMPRESSION):
            bits = ", ".join(str(bit) for bit in range(64) if unknown >> bit & 1)
            self._refuse(f"has incompatible features that are not known here (bits {bits})", CONVERT)
        self._need(refcount_order <= 6, f"has reference counts of 2^{refcount_order} bits, not up to 2^6")
        present = length > COMPRESSION_TYPE and len(self._head) > COMPRESSION_TYPE
        compression = self._head[COMPRESSION_TYPE] if present else ZLIB
        known = compression in (ZLIB, ZSTD)
        self._need(known, f"is compressed in a way that is not known here (type {compression})", CONVERT)
        says_so = bool(incompatible & COMPRESSION)
        self._need(says_so == (compression != ZLIB), "contradicts itself about its compression")
        return compression == ZSTD

    def _check_backing(self, offset: int, length: int) -> None:
        if not offset:
            return
        inside = offset >= V2_BYTES and offset + length <= self._cluster and length <= MOST_NAME_BYTES
        self._need(inside, "has the name of its backing file where none can be")
        name = self._head[offset : offset + length].decode(errors="replace")
        self._refuse(f"has a backing file ({name!r})", CONVERT)

    def _check_size(self, size: int, l1_entries: int) -> None:
        self._need(size > 0, "is a disk without a byte", RESIZE)
        self._need(size < 1 << 63, f"is a disk of {size} bytes, more than a file can have")
        per_entry = self._cluster * (self._cluster // ENTRY_BYTES)  # bytes of the disk that an entry of L1 stands for
        needed = -(-size // per_entry)
        self._need(l1_entries >= needed, f"has {l1_entries} entries in its L1 table, and needs {needed} for its size")

    def _check_table(self, name: str, offset: int, length: int, most: int) -> None:
        """A table must start at a cluster after the header, and lie in the file, whose last cluster may be partial."""
        self._need(length <= most, f"has a {name} of {length} bytes, more than {most}")
        starts = offset >= self._cluster and offset % self._cluster == 0
        self._need(starts, f"has its {name} at byte {offset}, where no table can start")
        end = -(-self._file_bytes // self._cluster) * self._cluster
        places = f"its {name} ends at byte {offset + length}, the file at {self._file_bytes}"
        self._need(offset + length <= end, f"is cut off ({places})", FETCH)
