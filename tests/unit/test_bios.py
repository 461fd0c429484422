"""A BIOS as the first program: told from other files, placed, and told about the machine by fw_cfg."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_boot import bzimage, elf
from test_machine_parts import MIB, memory_of

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.pc.boot import bios
from dwcvmm.pc.boot.loader import GuestFiles, load_guest
from dwcvmm.pc.devices.fwcfg import FirmwareConfig

KIB = 1 << 10


def bios_image(size: int = 128 * KIB) -> bytes:
    return bytes(size - 16) + b"\xea\x5b\xe0\x00\xf006/23/99\0\xfc\0"


def qboot_image() -> bytes:
    return b"qboot".ljust(64 * KIB - 16, b"\0") + b"\xe9\x8d\xff".ljust(16, b"\x90")


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


@given(
    st.booleans(),
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 11), st.sampled_from((1, 2, 4)), st.integers(0, 2**32 - 1)), max_size=50
    ),
)
def test_any_access_is_answered(with_dma: bool, accesses: list[tuple[bool, int, int, int]]) -> None:
    device = FirmwareConfig({"a": b"1"}, memory=memory_of(4 * MIB)[0] if with_dma else None)
    for write, offset, size, value in accesses:
        if write:
            device.write(offset, size, value)
            device.process()
        else:
            assert 0 <= device.read(offset, size) < 1 << 8 * size


def request(device: FirmwareConfig, ram: bytearray, control: int, length: int, target: int, at: int = 0x8000) -> int:
    """A request for DMA, as a guest makes it; returns its control word afterwards."""
    ram[at : at + 16] = struct.pack(">IIQ", control, length, target)
    device.write(4, 4, int.from_bytes((at >> 32).to_bytes(4, "big"), "little"))
    device.write(8, 4, int.from_bytes((at & 0xFFFFFFFF).to_bytes(4, "big"), "little"))
    assert device.waiting
    device.process()
    assert not device.waiting
    return int(struct.unpack_from(">I", ram, at)[0])


def test_dma_moves_items_at_once() -> None:
    memory, ram = memory_of(4 * MIB)
    device = FirmwareConfig({}, {0x11: b"0123456789"}, memory)
    assert item(device, 1, 4) == struct.pack("<I", 3)
    assert struct.pack(">II", device.read(4, 4), device.read(8, 4)) == b"QEMU CFG"
    assert request(device, ram, 0x11 << 16 | 8 | 2, 4, MIB) == 0
    assert request(device, ram, 4, 2, 0) == 0, "skipped"
    assert request(device, ram, 2, 8, MIB + 4) == 0
    assert ram[MIB : MIB + 12] == b"01236789\0\0\0\0"


@pytest.mark.parametrize(
    ("control", "length", "target"), [(2, 16, 4 * MIB - 8), (2, 0xFFFFFFFF, 0), (16, 1, MIB), (2, 1, 1 << 63)]
)
def test_dma_that_cannot_be_done_is_an_error(control: int, length: int, target: int) -> None:
    memory, ram = memory_of(4 * MIB)
    device = FirmwareConfig({}, {0x11: b"0123456789"}, memory)
    before = bytes(ram)
    assert request(device, ram, 0x11 << 16 | 8 | control, length, target) == 1
    assert ram[:0x8000] + ram[0x8010:] == before[:0x8000] + before[0x8010:]
    device.write(4, 4, 0xFFFFFFFF)
    device.write(8, 4, 0)  # a request that is nowhere
    device.process()
    assert not device.waiting


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
def test_it_takes_nothing_beside(tmp_path: Path, files: dict[str, Any]) -> None:
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


def by_firmware(tmp_path: Path, kernel: bytes, firmware: bytes, memory_bytes: int = 16 * MIB, **files: Any) -> CpuEntry:
    for name, content in (("kernel", kernel), ("rom", firmware), ("initrd", b"disk" * 1000)):
        (tmp_path / name).write_bytes(content)
    memory, _ = memory_of(memory_bytes)
    return load_guest(memory, GuestFiles(tmp_path / "kernel", bios=tmp_path / "rom", **files))


def test_a_firmware_gets_the_parts_of_a_kernel(tmp_path: Path) -> None:
    """As QEMU hands them (hw/i386/x86.c, x86_load_linux): the 16-bit part, the rest, and where each goes."""
    start = by_firmware(tmp_path, bzimage(), qboot_image(), initrd=tmp_path / "initrd", cmdline="quiet")
    assert (start.mode, start.rip, start.rom) == (Mode.REAL16, 0xFFF0, qboot_image())
    device = bios.configure(memory_of(16 * MIB)[0], start.fw_cfg)
    number = {key: struct.unpack("<I", item(device, key, 4))[0] for key in (7, 8, 10, 11, 19, 20, 22, 23)}
    assert (number[7], number[19], number[22]) == (1 * MIB, 0x20000, 0x10000)
    setup, code = item(device, 0x18, number[23]), item(device, 0x11, number[8])
    assert setup[:0x210] + code == bzimage()[:0x210] + bzimage()[1024:]
    assert item(device, 0x12, number[11]) == b"disk" * 1000
    assert item(device, 0x15, number[20]) == b"quiet\0"
    assert struct.unpack_from("<II", setup, 0x218) == (number[10], number[11])
    assert struct.unpack_from("<I", setup, 0x228) == (number[19],)
    assert number[10] + number[11] <= 16 * MIB - bios.TABLES_BYTES


@pytest.mark.parametrize(
    ("kernel", "firmware", "words"),
    [
        (bzimage(), bios_image(), "boots from a --disk"),
        (bzimage(), bytes(64 * KIB), "neither qboot"),
        (elf(), qboot_image(), "a firmware starts a bzImage"),
        (bzimage(init_size=16 * MIB), qboot_image(), "needs 18 MiB"),
        (bzimage()[:0x210], qboot_image(), "truncated"),
    ],
)
def test_what_no_firmware_starts(tmp_path: Path, kernel: bytes, firmware: bytes, words: str) -> None:
    with pytest.raises(GuestImageError, match=words):
        by_firmware(tmp_path, kernel, firmware)


def test_a_firmware_takes_no_modules_and_has_no_room_for_any_initrd(tmp_path: Path) -> None:
    with pytest.raises(GuestImageError, match="no modules"):
        by_firmware(tmp_path, bzimage(), qboot_image(), modules=("a",))
    with pytest.raises(GuestImageError, match="needs 5 MiB"):
        by_firmware(tmp_path, bzimage(init_size=3 * MIB - 66000), qboot_image(), 4 * MIB, initrd=tmp_path / "initrd")
    with pytest.raises(GuestImageError, match="takes 255"):
        by_firmware(tmp_path, bzimage(), qboot_image(), cmdline="x" * 256)
