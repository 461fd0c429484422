"""What a file is: which arguments a kernel gets by itself, and what is said of files that are none."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from test_bios import bios_image, qboot_image
from test_boot import BANNER, CODE, bzimage, elf, elf_note, pvh_note
from test_machine_parts import MIB, memory_of
from test_multiboot_headers import elf64, multiboot, multiboot2

from dwcvmm.errors import GuestImageError
from dwcvmm.pc.boot.foreign import SIGNATURES, describe
from dwcvmm.pc.boot.kinds import LEGACY_PC_DEFAULTS, LINUX_DEFAULTS, Kind
from dwcvmm.pc.boot.loader import GuestFiles, command_line, load_guest

PVH = pvh_note(1 * MIB)


def versioned(text: bytes) -> bytes:
    """A bzImage that says so of itself."""
    image = bytearray(bzimage())
    struct.pack_into("<H", image, 0x20E, 0x280 - 0x200)
    image[0x280 : 0x280 + len(text) + 1] = text + b"\0"
    return bytes(image)


KERNELS = {
    "bzimage": (bzimage(), Kind.LINUX_BZIMAGE),
    "linux": (versioned(b"6.1.0-29-cloud-amd64 (x@y) #1 SMP"), Kind.LINUX_BZIMAGE),
    "memtest": (versioned(b"Memtest86+ v6.10"), Kind.BZIMAGE),
    "vmlinux by its banner": (elf(), Kind.LINUX_ELF),
    "vmlinux by its note": (elf(note=elf_note(b"Linux", 0x100, b"salt"), banner=b""), Kind.LINUX_ELF),
    "pvh vmlinux": (elf(note=PVH), Kind.LINUX_ELF),
    "pvh vmlinux by Xen's note": (elf(note=elf_note(b"Xen", 6, b"linux\0") + PVH, banner=b""), Kind.LINUX_ELF),
    "pvh": (elf(note=PVH, banner=b""), Kind.PVH),
    "pvh that speaks of Linux": (elf(note=elf_note(b"Xen", 6, b"FreeBSD\0") + PVH), Kind.PVH),
    "multiboot": (multiboot(), Kind.MULTIBOOT),
    "multiboot2": (multiboot2(), Kind.MULTIBOOT2),
    "multiboot and pvh": (elf(note=PVH, banner=multiboot(flags=3)), Kind.MULTIBOOT),
    "bios": (bios_image(), Kind.BIOS),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_only_linux_gets_arguments(tmp_path: Path, name: str, packed: bool) -> None:
    image, kind = KERNELS[name]
    (kernel := tmp_path / "kernel").write_bytes(gzip.compress(image) if packed else image)
    is_linux = kind in (Kind.LINUX_BZIMAGE, Kind.LINUX_ELF)
    for legacy, words in ((False, LINUX_DEFAULTS), (True, LEGACY_PC_DEFAULTS)):
        added = words if is_linux else ""
        assert command_line(kernel, "quiet", 8 * MIB, legacy) == (kind, added, f"{added} quiet".strip())


def test_by_default_there_are_acpi_and_apics() -> None:
    switched_off = {"acpi=off", "noapic", "nolapic"}
    assert not switched_off & set(LINUX_DEFAULTS.split())
    assert switched_off < set(LEGACY_PC_DEFAULTS.split())


@pytest.mark.parametrize("line", [LINUX_DEFAULTS, LEGACY_PC_DEFAULTS])
def test_linux_is_told_to_leave_out_what_spins_without_an_exit(line: str) -> None:
    assert {"lpj=1000000", "cryptomgr.notests"} < set(line.split())


def test_a_flat_image_is_one_by_its_name_alone(tmp_path: Path) -> None:
    for name in ("flat.bin", "flat"):
        (tmp_path / name).write_bytes(CODE)
    assert command_line(tmp_path / "flat.bin", "", 8 * MIB) == (Kind.FLAT, "", "")
    with pytest.raises(GuestImageError, match="neither"):
        command_line(tmp_path / "flat", "", 8 * MIB)


def rom(content: bytes, jump: bytes = b"\xe9\x8d\xff") -> bytes:
    return content.ljust((1 << 20) - 16, b"\0") + jump.ljust(16, b"\x90")


def pe(subsystem: int = 10, section: bytes = b".text") -> bytes:
    """A PE32+ file's headers, with one section."""
    optional = bytearray(112)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<H", optional, 68, subsystem)
    header = b"MZ" + bytes(58) + struct.pack("<I", 64)
    header += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, len(optional), 0x22)
    return header + optional + section.ljust(40, b"\0") + bytes(4096)


ROM_ADDRESSES = (0xFFF00000, 0xFFF00000, 0, 0, 0xFFF00000)
FIRMWARE_VOLUME = bytes(40) + b"_FVH"
FOREIGN = {
    "OVMF": (FIRMWARE_VOLUME + bytes(1 << 20), "UEFI firmware"),
    "OVMF's variables": (FIRMWARE_VOLUME, "UEFI firmware"),
    "u-boot.rom": (rom(b"U-Boot 2023.01", b"\xfa\xfc\xe9\x0b\xf8"), "U-Boot for the ROM"),
    "u-boot.bin": (multiboot(addresses=ROM_ADDRESSES) + b"U-Boot 2023.01", "U-Boot for the ROM"),
    "u-boot as ELF": (elf(banner=b"U-Boot 2023.01"), "U-Boot for the ROM"),
    "another for ROM": (multiboot(addresses=ROM_ADDRESSES), "from a ROM"),
    "coreboot": (rom(bytes(640) + b"LARCHIVE"), "coreboot"),
    "qboot": (qboot_image(), "--bios .* --kernel FILE"),
    "an EFI application": (pe(), "an EFI application"),
    "a unified kernel": (pe(section=b".linux"), "objcopy"),
    "a Windows program": (pe(subsystem=3), "a Windows program"),
    "a DOS program": (b"MZ" + bytes(200), "a DOS program"),
    "a boot sector": (bytes(510) + b"\x55\xaa", "--disk"),
    "a 64-bit ELF file": (elf(banner=b""), "64-bit ELF file, not Linux.*nothing says"),
    "a 32-bit vmlinux": (elf(machine=3), "32-bit vmlinux.*bzImage"),
    "a late header": (elf64(bytes(16384) + multiboot(flags=3)), "multiboot header at 0x4078 is behind the first 8192"),
    "a late header 2": (bytes(65536) + multiboot2(), "multiboot2 header at 0x10000 is behind"),
} | {what: (bytes(at) + content + bytes(100), what[:12]) for at, content, what in SIGNATURES}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_named(tmp_path: Path, name: str) -> None:
    """Also where they are called .bin, as many are."""
    image, words = FOREIGN[name]
    (file := tmp_path / "file.bin").write_bytes(image)
    with pytest.raises(GuestImageError, match=words):
        load_guest(memory_of(8 * MIB)[0], GuestFiles(file))


def test_a_u_boot_for_ram_is_a_kernel(tmp_path: Path) -> None:
    (file := tmp_path / "u-boot").write_bytes(multiboot() + b"U-Boot 2023.01")
    assert load_guest(memory_of(8 * MIB)[0], GuestFiles(file)).rax == 0x2BADB002


def test_section_headers_do_not_matter(tmp_path: Path) -> None:
    """Linkers of boot loaders leave strange ones: a table of symbols without its strings."""
    image = bytearray(elf() + bytes(64) + struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, 0, 24, 0, 0, 8, 24))
    struct.pack_into("<Q", image, 40, len(elf()))
    struct.pack_into("<3H", image, 58, 64, 2, 1)
    (kernel := tmp_path / "kernel").write_bytes(image)
    assert BANNER in image
    assert command_line(kernel, "", 8 * MIB).kind is Kind.LINUX_ELF


def test_a_file_system_is_told_by_more_than_two_bytes() -> None:
    image = bytearray(0x1000)
    image[0x438:0x43A] = b"\x53\xef"
    found = describe(bytes(image))
    assert found and "ext4" in found
    image[0x418:0x41C] = b"\xff\xff\xff\xff"  # blocks of no size
    assert describe(bytes(image)) is None
