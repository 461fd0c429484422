"""Recognises files that users take for kernels but that cannot be started, and says what is needed instead."""

from __future__ import annotations

import re
import struct

from dwcvmm.pc.boot import multiboot, multiboot2

UBOOT = re.compile(rb"U-Boot (?:SPL )?\d{4}\.\d\d")
# signatures: of an EFI firmware volume, at 40 (UEFI PI 1.7, volume 3, 3.2.1); of each file in coreboot's CBFS
EFI_VOLUME, CBFS_FILE, CBFS_ALIGNMENT = b"_FVH", b"LARCHIVE", 64
QBOOT = b"qboot"
RESET_VECTOR = -16  # from the end of a ROM
JUMPS = (b"\xe9", b"\xea", b"\xeb", b"\xfa\xfc\xe9", b"\xfa\xfc\xea")  # CLI and CLD before it: U-Boot
EFI_SUBSYSTEMS = (10, 11, 12)  # application, boot service driver, runtime driver (PE, optional header)
PE_MOST_SECTIONS = 96
UNPACK = "packed by {}: unpack it first (gzip alone is unpacked here)"
TO_DISK = "{}: give it by --disk, and a BIOS boots from it"
WANTED = "there is no UEFI here: give a kernel for a PC without it, or a --disk whose boot loader a BIOS starts"

# (offset, bytes there, what it is)
SIGNATURES = (
    (56, b"ARM\x64", "an ARM64 kernel, this machine is x86"),
    (36, b"\x18\x28\x6f\x01", "an ARM kernel, this machine is x86"),
    (56, b"RSC\x05", "a RISC-V kernel, this machine is x86"),
    (0, b"\x27\x05\x19\x56", "an image for U-Boot (uImage): give the kernel that is in it"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree, or an image for U-Boot (FIT): give the kernel that is in it"),
    (0, b"070701", "an initramfs (cpio): it goes to --initrd"),
    (0, b"070702", "an initramfs (cpio): it goes to --initrd"),
    (0, b"\xfd7zXZ\0", UNPACK.format("xz")),
    (0, b"\x28\xb5\x2f\xfd", UNPACK.format("zstd")),
    (0, b"BZh", UNPACK.format("bzip2")),
    (0, b"\x04\x22\x4d\x18", UNPACK.format("lz4")),
    (0, b"\x02\x21\x4c\x18", UNPACK.format("lz4")),
    (0, b"\x89LZO\0", UNPACK.format("lzop")),
    (0, b"PK\x03\x04", UNPACK.format("zip")),
    (257, b"ustar", "a tar archive: take the kernel out of it"),
    (0, b"!<arch>\n", "an archive of object files: link a kernel of it"),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O file: ELF, multiboot or a bzImage is wanted"),
    (0, b"#!", "a script"),
    (0, b"QFI\xfb", TO_DISK.format("a disk image (qcow2)")),
    (0, b"KDMV", TO_DISK.format("a disk image (VMDK)")),
    (0, b"vhdxfile", TO_DISK.format("a disk image (VHDX)")),
    (64, b"\x7f\x10\xda\xbe", TO_DISK.format("a disk image (VDI)")),
    (0x8001, b"CD001", TO_DISK.format("an ISO image")),
    (512, b"EFI PART", TO_DISK.format("a disk image")),
)
EXT4_SUPER_BLOCK, EXT4_MAGIC = 0x400, 0xEF53


def describe(image: bytes) -> str | None:
    """A sentence about a file that is neither a bzImage nor an ELF file and cannot be started; None if unknown."""
    if what := _firmware(image) or _windows(image) or _ext4(image):
        return what
    for at, content, what in SIGNATURES:
        if image[at : at + len(content)] == content:
            return what
    return None


def boot_sector(image: bytes) -> str | None:
    """A sentence about a file with a PC's boot sector."""
    if image[510:512] == b"\x55\xaa" and not len(image) % 512:
        return TO_DISK.format("a boot sector or a disk image")
    return None


def late_header(image: bytes) -> str | None:
    """A sentence about a multiboot header that is too far into the file for loaders to find."""
    for module, name, words in ((multiboot, "multiboot", 3), (multiboot2, "multiboot2", 4)):
        magic = struct.pack("<I", module.MAGIC)
        at = image.find(magic)
        while at >= 0:
            whole = not at % module.ALIGNMENT and module.SEARCH_BYTES < at + 4 * words <= len(image)
            if whole and not sum(struct.unpack_from(f"<{words}I", image, at)) & 0xFFFFFFFF:
                return f"its {name} header at {at:#x} is behind the first {module.SEARCH_BYTES} bytes of the file"
            at = image.find(magic, at + 1)
    return None


def u_boot(image: bytes) -> str | None:
    """A sentence about a U-Boot without a multiboot header, or with one but linked for a ROM."""
    if not UBOOT.search(image):
        return None
    return "U-Boot for the ROM of a machine: give the kernel that it would start, or a U-Boot that multiboot can load"


def is_qboot(image: bytes) -> bool:
    return _jumps_at_reset(image) and QBOOT in image


def _jumps_at_reset(image: bytes) -> bool:
    return not len(image) % 4096 and image[RESET_VECTOR:].startswith(JUMPS)


def _firmware(image: bytes) -> str | None:
    if image[40:44] == EFI_VOLUME:
        return f"UEFI firmware (OVMF or another of EDK II): {WANTED}"
    if _jumps_at_reset(image) and not len(image) % CBFS_ALIGNMENT:
        for at in range(0, len(image), CBFS_ALIGNMENT):
            if image.startswith(CBFS_FILE, at):
                return "a coreboot image, which sets up a real board: give the kernel or payload that is in it"
    return None


def _ext4(image: bytes) -> str | None:
    """An ext file system. Its magic has only two bytes, so other fields are checked, too (fs/ext4/ext4.h)."""
    if len(image) < EXT4_SUPER_BLOCK + 0x400:
        return None
    log_block_size = struct.unpack_from("<I", image, EXT4_SUPER_BLOCK + 0x18)[0]
    magic, state = struct.unpack_from("<HH", image, EXT4_SUPER_BLOCK + 0x38)
    revision = struct.unpack_from("<I", image, EXT4_SUPER_BLOCK + 0x4C)[0]
    if magic != EXT4_MAGIC or log_block_size > 6 or state > 7 or revision > 1:
        return None
    return TO_DISK.format("a file system (ext4)")


def _windows(image: bytes) -> str | None:
    """Files that begin as a DOS program does: PE files, such as EFI applications (Microsoft's PE format)."""
    if not image.startswith(b"MZ") or len(image) < 64:
        return None
    at = struct.unpack_from("<I", image, 60)[0]
    if at + 24 + 70 > len(image) or image[at : at + 4] != b"PE\0\0":
        return "a DOS program"
    sections, optional_bytes = struct.unpack_from("<H12xH", image, at + 6)
    if struct.unpack_from("<H", image, at + 24 + 68)[0] not in EFI_SUBSYSTEMS:
        return "a Windows program"
    headers = at + 24 + optional_bytes
    names = [image[headers + 40 * number :][:8].rstrip(b"\0") for number in range(min(sections, PE_MOST_SECTIONS))]
    if b".linux" in names:
        return f"a unified kernel image: take its kernel out by objcopy -O binary --only-section=.linux; {WANTED}"
    return f"an EFI application: {WANTED}"
