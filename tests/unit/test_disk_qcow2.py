"""The check of qcow2 headers, field by field, and what qemu-img makes, read back. No image here has tables that lie:
what the check refuses the library never sees.
"""

from __future__ import annotations

import builtins
import random
import resource
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qcow2images import FIELDS, Image, check_promises

from dwcvmm.errors import ConfigError
from dwcvmm.pc.devices.disk import DiskConfig, formats, open_disk
from dwcvmm.pc.devices.disk.base import DiskError
from dwcvmm.pc.devices.disk.qcow2header import COMPRESSION, HEADER_BYTES, Qcow2Header, parse

NAME = Path("disk 1.qcow2")
CHECK = r"qemu-img check -r all 'disk 1\.qcow2'"
CONVERT = r"qemu-img convert -O qcow2 'disk 1\.qcow2'"


def parsed(image: Image) -> Qcow2Header:
    return parse(NAME, image.head, image.file_bytes)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cluster_bits", range(9, 22))
def test_whole_headers(version: int, cluster_bits: int) -> None:
    image = Image(version=version, cluster_bits=cluster_bits, size=1 << 30)
    header = parsed(image)
    assert (header.cluster_bits, header.size_bytes, header.zstd) == (cluster_bits, 1 << 30, False)
    assert (header.l1_offset, header.l1_entries) == (image.fields["l1_offset"], image.fields["l1_entries"])


REFUSED: list[tuple[dict[str, int], str]] = [
    ({"version": 0}, "of version 0"),
    ({"version": 4}, "of version 4"),
    ({"cluster_bits": 8}, r"clusters of 2\^8 bytes"),
    ({"cluster_bits": 22}, r"clusters of 2\^22 bytes"),
    ({"cluster_bits": 0xFFFFFFFF}, r"clusters of 2\^4294967295 bytes"),
    ({"incompatible": 1}, f"dirty bit.*{CHECK}"),
    ({"incompatible": 2}, f"corrupt: {CHECK}"),
    ({"incompatible": 4}, f"external data file: {CONVERT}"),
    ({"incompatible": 8}, "contradicts itself about its compression"),
    ({"incompatible": 8, "compression": 2}, f"type 2.*{CONVERT}"),
    ({"incompatible": 16}, f"extended L2 entries: {CONVERT}"),
    ({"incompatible": 1 << 5 | 1 << 63}, rf"not known here \(bits 5, 63\): {CONVERT}"),
    ({"compression": 1}, "contradicts itself about its compression"),
    ({"compression": 1, "incompatible": 8, "header_length": 104}, "contradicts itself about its compression"),
    ({"refcount_order": 7}, r"counts of 2\^7 bits"),
    ({"header_length": 0}, "header of 0 bytes"),
    ({"header_length": 96}, "header of 96 bytes"),
    ({"header_length": 108}, "header of 108 bytes"),
    ({"header_length": (1 << 16) + 8}, "header of 65544 bytes"),
    ({"crypt": 1}, rf"encrypted \(AES\): {CONVERT}"),
    ({"crypt": 2}, rf"encrypted \(LUKS\): {CONVERT}"),
    ({"crypt": 3}, r"encrypted \(method 3\)"),
    ({"backing_offset": 112, "backing_bytes": 8}, rf"backing file \('base\.img'\): {CONVERT}"),
    ({"backing_offset": 8, "backing_bytes": 8}, "where none can be"),
    ({"backing_offset": 1 << 63, "backing_bytes": 8}, "where none can be"),
    ({"backing_offset": 112, "backing_bytes": 1024}, "where none can be"),
    ({"backing_offset": 65530, "backing_bytes": 8}, "where none can be"),
    ({"size": 0}, "without a byte: qemu-img resize"),
    ({"size": 1 << 63}, "more than a file can have"),
    ({"size": (1 << 64) - 1}, "more than a file can have"),
    ({"size": (1 << 63) - 1}, "entries in its L1 table, and needs"),
    ({"l1_entries": 0}, "has 0 entries in its L1 table, and needs 2"),
    ({"l1_entries": 1}, "has 1 entries in its L1 table, and needs 2"),
    ({"l1_entries": 0xFFFFFFFF}, "L1 table of 34359738360 bytes, more than 33554432"),
    ({"l1_entries": (4 << 20) + 1}, "more than 33554432"),
    ({"l1_entries": 4 << 20}, "cut off .*: fetch or copy it again"),
    ({"l1_offset": 0}, "L1 table at byte 0,"),
    ({"l1_offset": 512}, "L1 table at byte 512,"),
    ({"l1_offset": (1 << 16) + 8}, "where no table can start"),
    ({"l1_offset": 1 << 40}, "cut off .*L1 table"),
    ({"l1_offset": (1 << 64) - (1 << 16)}, "cut off .*L1 table"),
    ({"refcounts_offset": 1}, "reference counts at byte 1,"),
    ({"refcounts_offset": 1 << 50}, "cut off .*reference counts"),
    ({"refcounts_clusters": 0}, f"no reference counts: {CHECK}"),
    ({"refcounts_clusters": 129}, "reference counts of 8454144 bytes, more than 8388608"),
    ({"refcounts_clusters": 0xFFFFFFFF}, "more than 8388608"),
    ({"refcounts_clusters": 128}, "cut off .*reference counts"),
    ({"snapshots": 65537, "snapshots_offset": 1 << 16}, "65537 snapshots, more than 65536"),
    ({"snapshots": 1}, "snapshots at byte 0,"),
    ({"snapshots": 1, "snapshots_offset": 8}, "snapshots at byte 8,"),
    ({"snapshots": 65536, "snapshots_offset": 1 << 16}, "cut off .*snapshots"),
    ({"snapshots": 1, "snapshots_offset": (1 << 64) - (1 << 16)}, "cut off .*snapshots"),
]


@pytest.mark.parametrize(("wrong", "says"), REFUSED, ids=[str(wrong) for wrong, _ in REFUSED])
def test_each_field_is_checked(wrong: dict[str, int], says: str) -> None:
    image = Image(size=1 << 30)
    parsed(image)
    for name, value in wrong.items():
        image.fields[name] = value
    with pytest.raises(DiskError, match=says) as refusal:
        parsed(image)
    assert str(refusal.value).startswith("disk disk 1.qcow2: this qcow2 image ")


def test_what_may_be_ignored_is() -> None:
    """Compatible and auto-clear features, longer headers, snapshots, a last cluster that is a part."""
    image = Image(compatible=(1 << 64) - 1, autoclear=(1 << 64) - 1, header_length=4096, size=1 << 30)
    image.fields |= {"snapshots": 2, "snapshots_offset": 2 << 16, "refcount_order": 0}
    assert parsed(image).size_bytes == 1 << 30
    image.fields |= {"incompatible": COMPRESSION, "compression": 1}
    assert parsed(image).zstd
    image.fields |= {"refcounts_offset": 1 << 16, "l1_offset": 3 << 16}
    image.file_bytes = image.fields["l1_offset"] + 16
    assert parsed(image).l1_entries == 2
    image.file_bytes = image.fields["l1_offset"]
    with pytest.raises(DiskError, match="cut off"):
        parsed(image)


def test_fields_of_version_3_mean_nothing_in_version_2() -> None:
    """Extensions follow there."""
    image = Image(
        version=2, size=1 << 20, incompatible=(1 << 64) - 1, refcount_order=99, header_length=7, compression=9
    )
    assert not parsed(image).zstd


@pytest.mark.parametrize(("version", "least"), [(2, 72), (3, 104)])
def test_a_header_that_ends_early(version: int, least: int) -> None:
    image = Image(version=version, header_length=104)
    for length in range(4, least):
        with pytest.raises(DiskError, match=rf"ends within its header, at byte {length}: fetch"):
            parse(NAME, image.head[:length], image.file_bytes)
    parse(NAME, image.head[:least], image.file_bytes)


def test_a_name_cannot_play_with_the_terminal() -> None:
    image = Image(backing_offset=112, backing_bytes=8, name=b"\x1b[2J\nabc")
    with pytest.raises(DiskError) as refusal:
        parsed(image)
    assert "\x1b" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


fields_of_any_value = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(
            st.integers(0, (1 << 8 * size) - 1),
            st.integers(0, 64),
            st.integers(0, 8 * size - 1).map(lambda bit: 1 << bit),
        )
        for name, size in FIELDS.items()
    },
)


@given(fields_of_any_value, st.integers(0, 1 << 45), st.sampled_from([2, 3]))
def test_what_passes_is_safe_to_read(wrong: dict[str, int], file_bytes: int, version: int) -> None:
    """The promises of Qcow2Header, whatever the header says."""
    image = Image(version=version, size=1 << 20)
    image.fields |= wrong
    image.file_bytes = file_bytes
    try:
        header = parsed(image)
    except DiskError:
        return
    check_promises(header, file_bytes)


@given(st.binary(max_size=200))
def test_any_bytes_behind_the_magic(content: bytes) -> None:
    with pytest.raises(DiskError):
        parse(NAME, formats.QCOW2 + content, len(content) + 4)


def test_the_largest_image_needs_little(tmp_path: Path) -> None:
    """A table of 32 MiB, and a disk of 2 EiB; all of it unallocated."""
    path = tmp_path / "large"
    image = Image(cluster_bits=21, size=(4 << 20) << 39)
    image.write(path)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    disk = open_disk(DiskConfig(path, read_only=True))
    assert disk.read(disk.size_bytes - 512, 512) == bytes(512)
    disk.close()
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_part_of_the_image_that_is_missing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short"
    image = Image(cluster_bits=9, size=64 << 10)
    image.write(path, level2=[1 << 63 | 8 << 9, 1 << 63 | 1 << 40, 1 << 63 | 9 << 9], length=(8 << 9) + 100)
    disk = open_disk(DiskConfig(path, read_only=True))
    assert disk.read(0, 512) == b"\xaa" * 100 + bytes(412), "QEMU reads zeros to the end of the last cluster"
    for cluster in (1, 2):
        with pytest.raises(OSError, match="cut off or damaged"):
            disk.read(cluster * 512, 512)
    assert disk.read(3 * 512, 512) == bytes(512)
    disk.close()


def test_a_snapshot_of_qcow2_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    Image(size=1000).write(path)
    before = path.read_bytes()
    disk = open_disk(DiskConfig(path, snapshot=True))
    assert disk.size_bytes == 1024
    assert "last 488 bytes" in disk.remarks[0]
    disk.write(512, b"x" * 512)
    assert disk.read(0, 1024) == bytes(512) + b"x" * 512
    disk.close()
    assert path.read_bytes() == before


def test_no_qcow2_though_the_user_says_so(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    with pytest.raises(ConfigError, match="does not start as one"):
        open_disk(DiskConfig(path, read_only=True, format="qcow2"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real_import = tmp_path / "disk", builtins.__import__
    Image().write(path)

    def without(name: str, *rest: Any) -> ModuleType:
        if name.startswith("dissect"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigError, match=r"package dissect\.hypervisor: install dwcvmm with its extra qcow2 .*convert"
    ):
        open_disk(DiskConfig(path, read_only=True))


def test_a_missing_zstd_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dissect.hypervisor.disk import qcow2 as library

    path = tmp_path / "disk"
    Image(incompatible=COMPRESSION, compression=1).write(path)
    open_disk(DiskConfig(path, read_only=True)).close()
    monkeypatch.setattr(library, "HAS_ZSTD", False)
    with pytest.raises(ConfigError, match=r"package backports\.zstd: install dwcvmm with its extra qcow2"):
        open_disk(DiskConfig(path, read_only=True))


CREATED = [
    "compat=0.10,cluster_size=512", "compat=0.10", "cluster_size=512", "cluster_size=4K", "", "cluster_size=2M",
    "refcount_bits=1", "refcount_bits=64", "lazy_refcounts=on", "preallocation=metadata", "preallocation=full",
    "compressed", "compressed,cluster_size=4K", "compressed,compression_type=zstd",
    "compressed,compression_type=zstd,cluster_size=2M",
]  # fmt: skip


@pytest.mark.parametrize("options", CREATED)
def test_what_qemu_img_writes_is_read(tmp_path: Path, qemu_img: str, options: str) -> None:
    source, path, chance = tmp_path / "source", tmp_path / "disk.qcow2", random.Random(options)
    content = bytearray((3 << 20) + 7 * 512)
    for _ in range(30):
        at, length = chance.randrange(len(content) - 20_000), chance.randrange(1, 20_000)
        content[at : at + length] = chance.randbytes(length) if length % 2 else bytes([length % 256]) * length
    source.write_bytes(content)
    compressed, *rest = ["-c", *options.split(",")[1:]] if options.startswith("compressed") else ["", options]
    more = (
        [part for part in (compressed, "-o", ",".join(rest)) if part] if any(rest) else [compressed] * bool(compressed)
    )
    subprocess.run([qemu_img, "convert", "-f", "raw", "-O", "qcow2", *more, source, path], check=True)
    disk = open_disk(DiskConfig(path, read_only=True))
    assert disk.size_bytes == len(content)
    assert b"".join(disk.read(at, min(1 << 20, len(content) - at)) for at in range(0, len(content), 1 << 20)) == content
    for _ in range(50):
        at, length = chance.randrange(len(content) // 512 - 40) * 512, chance.randrange(1, 40) * 512
        assert disk.read(at, length) == content[at : at + length]
    disk.close()


@pytest.mark.parametrize("options", ["extended_l2=on", "data_file=other,data_file_raw=on", "encrypt.format=luks"])
def test_what_qemu_img_makes_and_is_not_read_is_named(tmp_path: Path, qemu_img: str, options: str) -> None:
    path = tmp_path / "disk.qcow2"
    if "data_file" in options:
        options = options.replace("other", str(tmp_path / "other"))
    secret = ["--object", "secret,id=key,data=x", "-o", "encrypt.key-secret=key,encrypt.iter-time=10"]
    more = secret if "encrypt" in options else []
    made = subprocess.run(
        [qemu_img, "create", "-q", "-f", "qcow2", *more, "-o", options, path, "8M"], capture_output=True, text=True
    )
    if "accurate CPU usage" in made.stderr:
        pytest.skip(f"qemu-img cannot make one here: {made.stderr}")
    assert not made.returncode, made.stderr
    with pytest.raises(ConfigError, match=r"(extended L2|external data|encrypted \(LUKS\)).*qemu-img convert -O qcow2"):
        open_disk(DiskConfig(path, snapshot=True))


def test_a_backing_file_is_named_and_not_opened(tmp_path: Path, qemu_img: str) -> None:
    base, path = tmp_path / "base.img", tmp_path / "disk.qcow2"
    base.write_bytes(bytes(1 << 20))
    for compat in ("compat=0.10", "compat=1.1"):
        subprocess.run(
            [qemu_img, "create", "-q", "-f", "qcow2", "-o", compat, "-F", "raw", "-b", base, path], check=True
        )
        with pytest.raises(ConfigError, match=r"has a backing file \('.*base\.img'\)"):
            open_disk(DiskConfig(path, snapshot=True))
        subprocess.run([qemu_img, "rebase", "-b", "", path], check=True)
        disk = open_disk(DiskConfig(path, snapshot=True))
        assert disk.read(0, 1 << 20) == bytes(1 << 20)
        disk.close()


def test_only_as_much_is_read_as_the_check_wants(tmp_path: Path) -> None:
    """A name of a backing file behind that is refused all the same."""
    image = Image(backing_offset=HEADER_BYTES + 8, backing_bytes=8)
    with pytest.raises(DiskError, match="has a backing file"):
        parse(NAME, image.head[:HEADER_BYTES], image.file_bytes)
