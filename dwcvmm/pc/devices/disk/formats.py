"""Tells images of other programs by their magic numbers: used as raw disks they would be destroyed.

The numbers are those of QEMU's block drivers (block/*.c, the probe functions) and of compression programs. Footers
are checked, too; QEMU itself takes a fixed VHD for a raw image.
"""

from __future__ import annotations

from dataclasses import dataclass

QCOW2 = b"QFI\xfb"
HEAD_BYTES = TAIL_BYTES = 512
CONVERT = "qemu-img convert -O raw {file} disk.raw makes a disk of it"
CONVERT_BY = "qemu-img convert -f {driver} -O raw {{file}} disk.raw makes a disk of it"


@dataclass(frozen=True)
class Magic:
    """`at`: offset in the file, from the end if negative. `remedy`: what the user can do with `{file}`."""

    name: str
    content: bytes
    at: int = 0
    remedy: str = CONVERT

    def fits(self, head: bytes, tail: bytes) -> bool:
        part, at = (head, self.at) if self.at >= 0 else (tail, len(tail) + self.at)
        return at >= 0 and part[at : at + len(self.content)] == self.content


def _packed(program: str, content: bytes, unpack: str, at: int = 0) -> Magic:
    return Magic(f"a file packed by {program}", content, at, f"unpack it first: {unpack} {{file}}")


FIXED_VHD = CONVERT_BY.format(driver="vpc")

FOREIGN = (
    Magic("a QCOW image of version 1", QCOW2 + b"\0\0\0\1"),
    Magic("a VMDK image", b"KDMV"),
    Magic("a VMDK image", b"COWD"),
    Magic("a VMDK image", b"\xbe\xba\xfe\xca\0\0\0\0"),  # SESparse
    Magic("the description of a VMDK image", b"# Disk DescriptorFile"),
    Magic("a VDI image", b"\x7f\x10\xda\xbe", 0x40),
    Magic("a VHDX image", b"vhdxfile"),
    Magic("a VHD image", b"conectix"),  # dynamic, differencing: a copy of the footer
    Magic("a VHD image (fixed)", b"conectix", -512, FIXED_VHD),
    Magic("a VHD image (fixed)", b"conectix", -511, FIXED_VHD),  # of old versions of Virtual PC
    Magic("a QED image", b"QED\0"),
    Magic("a Parallels image", b"WithoutFreeSpace"),
    Magic("a Parallels image", b"WithouFreSpacExt"),
    Magic("a COW image", b"OOOM\0\0\0\2", 0, "only QEMU before 2.2 can convert it"),
    Magic("a Bochs image", b"Bochs Virtual HD Image"),
    Magic("a cloop image", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    Magic("a DMG image", b"koly\0\0\0\4\0\0\2\0", -512, CONVERT_BY.format(driver="dmg")),
    Magic("encrypted by LUKS", b"LUKS\xba\xbe", 0, "a guest can open it itself"),
    _packed("gzip", b"\x1f\x8b\x08", "gzip -d"),
    _packed("xz", b"\xfd7zXZ\0", "xz -d"),
    _packed("zstd", b"\x28\xb5\x2f\xfd", "zstd -d"),
    _packed("bzip2", b"1AY&SY", "bzip2 -d", 4),
    _packed("zip", b"PK\3\4", "unzip"),
    _packed("7-Zip", b"7z\xbc\xaf\x27\x1c", "7z x"),
)


def foreign(head: bytes, tail: bytes) -> Magic | None:
    """The format of a file that is neither raw nor qcow2. `head`, `tail`: up to 512 bytes from the ends of the file."""
    return next((magic for magic in FOREIGN if magic.fits(head, tail)), None)
