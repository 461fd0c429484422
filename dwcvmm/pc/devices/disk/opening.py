"""Opens an image as a disk."""

from __future__ import annotations

import shlex

from dwcvmm.pc.devices.disk.base import Disk, DiskConfig, DiskError
from dwcvmm.pc.devices.disk.changes import Changes
from dwcvmm.pc.devices.disk.formats import HEAD_BYTES, QCOW2, TAIL_BYTES, foreign
from dwcvmm.pc.devices.disk.imagefile import ImageFile
from dwcvmm.pc.devices.disk.qcow2 import Qcow2Disk
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
    file = ImageFile(config.path, config.writes)
    try:
        if (config.format or detect_format(file)) == "qcow2":
            if config.writes:
                raise DiskError(config.path, "qcow2 is not written to; add ,snapshot or ,readonly")
            disk: Disk = Qcow2Disk(file)
        else:
            disk = RawDisk(file)
        return Changes(disk) if config.snapshot else disk
    except OSError as error:
        file.close()
        raise DiskError(config.path, f"cannot be read: {error.strerror}") from error
    except BaseException:
        file.close()
        raise
