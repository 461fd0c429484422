"""Opens an image as a disk."""

from __future__ import annotations

import shlex
from pathlib import Path

from dwcvmm.errors import ConfigError
from dwcvmm.nbd.address import NbdAddress
from dwcvmm.pc.devices.disk import qcow2header
from dwcvmm.pc.devices.disk.base import Disk, DiskConfig, DiskError
from dwcvmm.pc.devices.disk.changes import Changes
from dwcvmm.pc.devices.disk.formats import HEAD_BYTES, QCOW2, TAIL_BYTES, foreign
from dwcvmm.pc.devices.disk.imagefile import ImageFile
from dwcvmm.pc.devices.disk.nbd import open_address, open_by_qemu
from dwcvmm.pc.devices.disk.qcow2 import Qcow2Disk
from dwcvmm.pc.devices.disk.qcow2header import HEADER_BYTES
from dwcvmm.pc.devices.disk.raw import RawDisk


def detect_format(file: ImageFile) -> str:
    """The format by content, if the user did not give it. Raises OSError, or DiskError if neither raw nor qcow2."""
    head = file.read(0, min(HEAD_BYTES, file.size_bytes))
    tail_bytes = min(TAIL_BYTES, file.size_bytes)
    magic = foreign(head, file.read(file.size_bytes - tail_bytes, tail_bytes))
    if magic:
        remedy = magic.remedy.format(file=shlex.quote(str(file.path)))
        raise DiskError(file.path, f"is {magic.name}: {remedy}; with ,format=raw its bytes are taken as they are")
    return "qcow2" if head.startswith(QCOW2) else "raw"


def open_disk(config: DiskConfig) -> Disk:
    """Open an image. Raises ConfigError (missing, in use, wrong kind) or HostError (the host lacks something)."""
    if isinstance(config.path, NbdAddress):
        disk: Disk = open_address(config.path, config.writes)
    else:
        disk = _open_file(config.path, config)
    try:
        return Changes(disk) if config.snapshot else disk
    except BaseException:
        disk.close()
        raise


def _open_file(path: Path, config: DiskConfig) -> Disk:
    file = ImageFile(path, config.writes)
    try:
        if (config.format or detect_format(file)) != "qcow2":
            return RawDisk(file)
        if not config.writes:
            return Qcow2Disk(file)
        if not config.format:
            check_alone(file)
    except OSError as error:
        file.close()
        raise DiskError(path, f"cannot be read: {error.strerror}") from error
    except BaseException:
        file.close()
        raise
    file.close()  # qemu-nbd locks it
    return open_by_qemu(path, "qcow2")


def check_alone(file: ImageFile) -> None:
    """A guest can make a qcow2 image of its raw disk, and name any file of the host as the one behind it. So unless the
    user says that it is qcow2, an image is written to only if it names no other file. Raises DiskError.
    """
    try:
        qcow2header.parse(file.path, file.read(0, min(HEADER_BYTES, file.size_bytes)), file.size_bytes)
    except DiskError as error:
        more = "with ,format=qcow2 qemu-nbd takes it as it is, and opens the files that it names"
        raise ConfigError(f"{error}; {more}") from None
