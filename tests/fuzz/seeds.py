"""Inputs to begin with: one whole example of each format, so that what is behind the first check is reached."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from qcow2images import Image
from targets import RECORD
from test_bios import bios_image
from test_boot import bzimage, elf, pvh_note
from test_machine_parts import MIB
from test_multiboot_headers import VALID

CLUSTER_BITS = 9


def qcow2() -> bytes:
    """Version 2, clusters of 512 bytes, 8 KiB: one cluster with content, one of zeros (QEMU, docs/interop/qcow2)."""
    cluster = 1 << CLUSTER_BITS
    header = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 2, 0, 0, CLUSTER_BITS, 8192, 0, 1, cluster, 2 * cluster, 1, 0, 0)
    level1 = struct.pack(">Q", 1 << 63 | 3 * cluster)
    level2 = struct.pack(">Q", 1 << 63 | 4 * cluster)
    return b"".join(part.ljust(cluster, b"\0") for part in (header, level1, b"", level2, b"content"))


def qcow2_headers() -> list[bytes]:
    """Whole ones, in files of a gigabyte: both versions, sizes of clusters, what is refused and what may be ignored."""
    images = [Image(version=version, cluster_bits=bits) for version in (2, 3) for bits in (9, 16, 21)]
    images += [
        Image(incompatible=8, compression=1),
        Image(incompatible=1 << 4),
        Image(backing_offset=112, backing_bytes=8),
        Image(snapshots=1, snapshots_offset=1 << 16),
        Image(size=1 << 40),
    ]
    return [(1 << 21).to_bytes(4, "little") + image.head[:200] for image in images]


def operations() -> bytes:
    """A request of three descriptors, offered and kicked, and registers read."""
    steps = [
        (0, 1, 0, 16 << 32 | 0x200000 << 8 | 1),
        (0, 1, 1, 512 << 32 | 0x201000 << 8 | 2),
        (0, 2, 2, 1 << 32 | 0x202000 << 8),
        (2, 0, 0, 0),
        (3, 0, 0, 0),
        (5, 0, 20, 0),
        (13, 0, 20, 0),
        (6, 2, 0x10, 0),
    ]
    return b"".join(RECORD.pack(*step) for step in steps)


def frames() -> bytes:
    """Buffers for two frames, which come; one that is sent; and a length that cannot be. A bit of a descriptor's
    flags that means nothing leads to the right queue.
    """
    to_write, to_read = 18, 16
    steps = [
        (0, to_write, 0, 2048 << 32 | 0x200000 << 8),
        (0, to_write, 1, 2048 << 32 | 0x201000 << 8),
        (2, 0, 0, 0),
        (2, 0, 0, 1),
        (7, 1, 60, 1),
        (7, 1, 1500, 2),
        (3, 0, 0, 0),
        (0, to_read, 0, 100 << 32 | 0x202000 << 8),
        (2, 1, 0, 0),
        (3, 1, 0, 0),
        (7, 0, 10, 0),
        (3, 0, 0, 0),
    ]
    return b"".join(RECORD.pack(*step) for step in steps)


def requests() -> bytes:
    """An item read by DMA: what is wanted at 0x1000, and the request's address at port 0x518."""
    steps = [
        (1, 0, 0x1000, (0x11 << 16 | 8 | 2) << 32 | 4096),
        (1, 0, 0x1008, 0x2000),
        (2, 4, 0, 0),
        (2, 8, 0, 0x00100000),
        (0, 8, 0, 0),
    ]
    return b"".join(RECORD.pack(*step) for step in steps)


GDB_PACKETS = [
    *(b"qSupported:swbreak+;hwbreak+", b"?", b"g", b"p10", b"P11=4142434445464748", b"m0,100", b"M10,3:414243"),
    *(
        b"X20,2:\xff}",
        b"Z0,1000,1",
        b"z0,1000,1",
        b"Z2,2000,4",
        b"vCont?",
        b"vCont;c",
        b"c1234",
        b"S05;40",
        b"bs",
        b"bc",
    ),
    *(b"qRcmd,68656c70", b"QStartNoAckMode", b"Hg0", b"qXfer:features:read:target.xml:10,20"),
    *(b"G" + b"00" * 440, b"qfThreadInfo", b"qC", b"vKill;1", b"D", b"k"),
]

SEEDS: dict[str, list[bytes]] = {
    "kernel": [
        b"\0" + image
        for image in (bzimage(), elf(note=pvh_note(1 * MIB)), elf(), gzip.compress(elf()), bios_image(64 << 10), *VALID)
    ]
    + [b"\x03" + image for image in VALID]
    + [b"\x0d" + bzimage()],
    "firmware_dma": [requests()],
    "qcow2_header": qcow2_headers(),
    "qcow2": [qcow2()],
    "virtio_block": [operations()],
    "virtio_console": [operations()],
    "virtio_rng": [operations()],
    "virtio_net": [operations(), frames()],
    "registers": [operations()],
    "texts": [
        *(b"\0disk.img,snapshot,format=raw", b"\x015000:e2:rax:3", b"\x017+3:e1:ram+0x400000:2,5", b"\x02256M"),
        *(b"\x03200us", b"\x0410", b"\x05utc=2026-11-29T08:00:00"),
        *(b"\x06user,forward=tcp:127.0.0.1:8080:80,mtu=1500", b"\x06tap=tap0,mac=52:54:00:12:34:56"),
        # more digits than Python makes an integer of
        *(bytes([kind]) + prefix + b"9" * 5000 for kind in range(9) for prefix in (b"", b"1:e2:rax:", b"utc=")),
    ],
    "control_socket": [
        b"\xff" + b'{"execute": "x-dwc-inject", "arguments": {"fault": "5000:e2:rax:3"}, "id": [1, "a\\"}"]}\n' * 2,
        b"\x03" + b'{"execute": "stop"}{"execute": "query-commands", "id": 1.5e300}',
        b"\x10" + b'{"execute": "query-version", "id": [\n1,\n{"a":\n2}]}\n',
        b"\x00" + b'{\n"execute": "query-status",\n"id": {"a": [null, true, "\\ud83d\\ude00"]}}\n[]\n"\n}{\n\n',
    ],
    "gdb": [
        b"\0$qSupported:swbreak+#00+$?#3f$g#67$p1f#c7\x03$vCont;s:1#00$qXfer:features:read:target.xml:0,ffb#ec",
        *(first + b"\n".join(GDB_PACKETS) for first in (b"\1", b"\3")),
        *(first + packet for first in (b"\1", b"\3") for packet in GDB_PACKETS),
    ],
    "machine_file": [
        b'kernel = "k"\nmemory = 512\nrng = true\ndisk = ["a,snapshot", "b"]\nmodule = [\n  "m x",\n]\n',
        b"timeout = 1.5\nclock-divisor = 0x10\nrtc = 'fixed'\nstrategy = \"off\"\nfault = ['5000:e2:rax:3']\n",
        b"[table]\na.b = 1979-05-27T07:32:00Z\n[[c]]\n",
    ],
    "results": [b"dwcvmm-divergence/1\n", b'{"schema": "dwcvmm-report/1"}'],
}
