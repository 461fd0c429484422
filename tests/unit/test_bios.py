"""A BIOS as the first program: told from other files, placed, and told about the machine by fw_cfg."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_machine_parts import MIB, memory_of

from dwcvmm.boot import bios
from dwcvmm.boot.entry import Mode
from dwcvmm.boot.loader import GuestFiles, load_guest
from dwcvmm.devices.fwcfg import FirmwareConfig
from dwcvmm.errors import GuestImageError

KIB = 1 << 10


def bios_image(size: int = 128 * KIB) -> bytes:
    return bytes(size - 16) + b"\xea\x5b\xe0\x00\xf006/23/99\0\xfc\0"


def item(device: FirmwareConfig, key: int, length: int) -> bytes:
    device.write(0, 2, key)
    return bytes(device.read(1, 1) for _ in range(length))


def directory(device: FirmwareConfig) -> dict[str, bytes]:
    """All files, found as SeaBIOS finds them."""
    count = struct.unpack(">I", item(device, 0x19, 4))[0]
    entries = item(device, 0x19, 4 + 64 * count)[4:]
    files = {}
    for size, key, name in struct.iter_unpack(">IHxx56s", entries):
        files[name.rstrip(b"\0").decode()] = item(device, key, size)
    return files


@given(st.dictionaries(st.text("abc/-", min_size=1, max_size=55), st.binary(max_size=99), max_size=8))
def test_files_come_back(files: dict[str, bytes]) -> None:
    device = FirmwareConfig(files)
    assert item(device, 0, 4) == b"QEMU"
    assert directory(device) == files
    assert item(device, 0x7777, 4) == bytes(4)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.sampled_from((1, 2, 4)), st.integers(0, 2**32 - 1))))
def test_any_access_is_answered(accesses: list[tuple[bool, int, int, int]]) -> None:
    device = FirmwareConfig({"a": b"1"})
    for write, offset, size, value in accesses:
        if write:
            device.write(offset, size, value)
        else:
            assert 0 <= device.read(offset, size) < 256


@pytest.mark.parametrize("size", [64 * KIB, 128 * KIB, 256 * KIB])
def test_it_ends_at_1_mib(tmp_path: Path, size: int) -> None:
    memory, ram = memory_of(8 * MIB)
    (file := tmp_path / "any").write_bytes(image := bios_image(size))
    start = load_guest(memory, GuestFiles(file))
    assert (start.mode, start.rip) == (Mode.REAL16, 0xFFF0)
    assert bytes(ram[MIB - size : MIB]) == image


@pytest.mark.parametrize("image", [bios_image(128 * KIB)[:-1], bios_image(512 * KIB), bytes(128 * KIB)])
def test_other_files_are_none(image: bytes) -> None:
    assert not bios.is_bios(image)


@pytest.mark.parametrize("files", [{"initrd": Path("initrd")}, {"cmdline": "quiet"}, {"modules": ("a",)}])
def test_it_takes_nothing_beside(tmp_path: Path, files: dict) -> None:
    (file := tmp_path / "bios.bin").write_bytes(bios_image())
    with pytest.raises(GuestImageError):
        load_guest(memory_of(8 * MIB)[0], GuestFiles(file, **files))


def test_tables_lie_in_what_the_map_reserves() -> None:
    memory, ram = memory_of(8 * MIB)
    files = directory(bios.configure(memory))
    regions = list(struct.iter_unpack("<QQI", files["etc/e820"]))
    assert sum(length for _, length, _ in regions) == 8 * MIB
    (reserved,) = ((start, start + length) for start, length, kind in regions if kind == 2)
    pointer = files["etc/acpi/rsdp"]
    assert pointer.startswith(b"RSD PTR ")
    assert sum(pointer) & 0xFF == 0
    rsdt, xsdt = struct.unpack_from("<I", pointer, 16)[0], struct.unpack_from("<Q", pointer, 24)[0]
    length = struct.unpack_from("<I", ram, rsdt + 4)[0]
    for at in (rsdt, xsdt, *struct.unpack_from(f"<{(length - 36) // 4}I", ram, rsdt + 36)):
        assert reserved[0] <= at < at + struct.unpack_from("<I", ram, at + 4)[0] <= reserved[1]
        assert sum(ram[at : at + struct.unpack_from("<I", ram, at + 4)[0]]) & 0xFF == 0


def test_the_loader_is_told_to_place_the_pointer() -> None:
    script = directory(bios.configure(memory_of(8 * MIB)[0]))["etc/table-loader"]
    command, name, align, zone = struct.unpack_from("<I56sIB", script)
    assert (len(script), command, name.rstrip(b"\0"), align, zone) == (128, 1, b"etc/acpi/rsdp", 16, 2)
