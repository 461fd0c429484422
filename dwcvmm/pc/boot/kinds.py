"""What a kernel file is. Only this file decides how a kernel is started, and which default arguments it gets."""

from __future__ import annotations

import re
import struct
from enum import Enum
from pathlib import Path

from dwcvmm.errors import GuestImageError
from dwcvmm.pc import layout
from dwcvmm.pc.boot import elf, foreign, multiboot, multiboot2
from dwcvmm.pc.boot.bios import is_bios
from dwcvmm.pc.boot.bzimage import is_bzimage, version_text
from dwcvmm.pc.boot.placement import open_elf

FLAT_SUFFIX = ".bin"
LINUX_VERSION = re.compile(r"\d+\.\d")

# Default arguments of Linux.
# - lpj: by default Linux is not shown a TSC. It would count loops from timer interrupt to timer interrupt to find out
#   how long udelay() takes (init/calibrate.c): a long time without an exit.
# - no_timer_check: Linux also counts loops to see whether timer interrupts arrive, and gives up too early if the
#   guest clock is slow (arch/x86/kernel/apic/io_apic.c, timer_irq_works).
# - cryptomgr.notests: while the tests of built-in ciphers run (Linux 6.12), threads contend for a semaphore, on which
#   a writer spins until sched_clock() has advanced some microseconds (kernel/locking/rwsem.c, rwsem_optimistic_spin).
#   Without a TSC that clock is jiffies: it spins without an exit until the next timer interrupt, hundreds of times.
# The local APIC's timer needs no argument: it is calibrated by timer interrupts and the ACPI PM timer, which follow
# the guest clock as it does (arch/x86/kernel/apic/apic.c, calibrate_APIC_clock).
LINUX_DEFAULTS = (
    "console=ttyS0 earlyprintk=serial nokaslr panic=-1 lpj=1000000 no_timer_check cryptomgr.notests mitigations=off"
)
# the same without ACPI and without APICs: the 8259, the 8254, and jiffies as its clock
LEGACY_PC_DEFAULTS = (
    "console=ttyS0 earlyprintk=serial nokaslr panic=-1 acpi=off noapic nolapic lpj=1000000 "
    "cryptomgr.notests mitigations=off edd=off reboot=k"
)


class Kind(Enum):
    """Kinds of kernels. The value is the text that users see."""

    LINUX_BZIMAGE = "Linux bzImage"
    BZIMAGE = "bzImage of another kernel than Linux"  # memtest86+, iPXE
    MULTIBOOT2 = "multiboot 2 kernel"
    MULTIBOOT = "multiboot kernel"
    LINUX_ELF = "Linux ELF file"
    PVH = "kernel with a PVH entry"
    BIOS = "BIOS"
    FLAT = "flat image"

    @property
    def takes_modules(self) -> bool:
        return self in (Kind.MULTIBOOT, Kind.MULTIBOOT2)

    def default_arguments(self, legacy_pc: bool) -> str:
        """The arguments before the user's own ones. Only Linux gets any."""
        if self not in (Kind.LINUX_BZIMAGE, Kind.LINUX_ELF):
            return ""
        return LEGACY_PC_DEFAULTS if legacy_pc else LINUX_DEFAULTS


def identify(path: Path, image: bytes) -> Kind:
    """Tell a kernel's kind by its content; flat images by their name.

    A kernel with both a multiboot header and a PVH entry (Xen) is started by multiboot: PVH has only one module.

    Raises GuestImageError if it cannot be started.
    """
    if is_bzimage(image):
        version = version_text(image)
        return Kind.LINUX_BZIMAGE if version is None or LINUX_VERSION.match(version) else Kind.BZIMAGE
    what = None if elf.is_elf(image) else foreign.describe(image)
    if what:
        raise GuestImageError(path, what)
    if is_bios(image):
        return Kind.BIOS
    if foreign.is_qboot(image):
        raise GuestImageError(path, f"qboot starts a kernel that it is given: --bios {path} --kernel FILE")
    if multiboot2.find_header(image):
        return Kind.MULTIBOOT2
    if header := multiboot.find_header(image):
        if header.flags & multiboot.ADDRESSES and _load_address(image, header) >= layout.LOW_RAM_END:
            raise GuestImageError(path, foreign.u_boot(image) or "is made to run from a ROM: no kernel, but firmware")
        return Kind.MULTIBOOT
    if elf.is_elf(image):
        return _identify_elf(path, image)
    if what := foreign.u_boot(image) or foreign.late_header(image) or foreign.boot_sector(image):
        raise GuestImageError(path, what)
    if path.suffix == FLAT_SUFFIX and image:
        return Kind.FLAT
    raise GuestImageError(
        path, f"neither a Linux bzImage nor a multiboot or ELF file nor a BIOS or flat image ({FLAT_SUFFIX})"
    )


def _load_address(image: bytes, header: multiboot.Header) -> int:
    return int(struct.unpack_from("<I", image.ljust(header.offset + 20, b"\0"), header.offset + 16)[0])


def _identify_elf(path: Path, image: bytes) -> Kind:
    file = open_elf(path, image)
    notes = elf.read_notes(path, file)
    has_pvh, is_64_bit = notes.pvh_entry is not None, file.header["e_machine"] == "EM_X86_64"
    if elf.is_linux(notes, image) and (has_pvh or is_64_bit):
        return Kind.LINUX_ELF
    if has_pvh:
        return Kind.PVH
    if elf.is_linux(notes, image):
        raise GuestImageError(path, "a 32-bit vmlinux of Linux without a PVH entry: give its bzImage")
    bits = 64 if is_64_bit else 32
    how = foreign.u_boot(image) or foreign.late_header(image) or "nothing says how it is started"
    raise GuestImageError(path, f"a {bits}-bit ELF file, not Linux, without PVH entry and multiboot header: {how}")
