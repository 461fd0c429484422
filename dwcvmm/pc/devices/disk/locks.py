"""Locks on images that QEMU, qemu-nbd and qemu-img respect, as dwcvmm respects theirs.

QEMU (block/file-posix.c, util/osdep.c) uses one byte in the file for each kind of access: from 100 on for those that a
process has, from 200 on for those that it does not want others to have. The locks are shared ones, so that any number
of processes can hold them, and belong to the open file (F_OFD_SETLK in fcntl(2)). A process first locks its own bytes,
and then asks for each byte that would conflict whether another process has locked it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

# kinds of access, by their bits in BLK_PERM_* (QEMU, include/block/block-common.h)
CONSISTENT_READ, WRITE, RESIZE = 0, 1, 3
HAS, REFUSES = 100, 200  # RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE
FLOCK = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid
IN_USE = (errno.EAGAIN, errno.EACCES)
NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # a file system without them

VERBS = {CONSISTENT_READ: "read", WRITE: "write to", RESIZE: "resize"}


class InUseError(Exception):
    """Another process has the image open in a way that conflicts with ours."""


def _fcntl(fd: int, command: int, kind: int, at: int) -> int:
    answer = fcntl.fcntl(fd, command, FLOCK.pack(kind, os.SEEK_SET, at, 1, 0))
    return int(FLOCK.unpack(answer)[0])


def lock(fd: int, writes: bool) -> bool:
    """Lock an open image until it is closed: for reading together with other readers, or for writing alone.

    Returns False if its file system has no locks. Raises InUseError, or OSError for other failures.
    """
    ours = (CONSISTENT_READ, WRITE, RESIZE) if writes else (CONSISTENT_READ,)
    refused = (WRITE, RESIZE)
    try:
        for byte in (*(HAS + kind for kind in ours), *(REFUSES + kind for kind in refused)):
            _fcntl(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, byte)
        for kind in refused:
            if _fcntl(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, HAS + kind) != fcntl.F_UNLCK:
                raise InUseError(f"another process uses it, and may {VERBS[kind]} it")
        for kind in ours:
            if _fcntl(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, REFUSES + kind) != fcntl.F_UNLCK:
                raise InUseError(f"another process uses it, and lets nobody else {VERBS[kind]} it")
    except OSError as error:
        if error.errno in NO_LOCKS_HERE:
            return False
        if error.errno in IN_USE:
            raise InUseError("another process uses it and has locked all of it") from error
        raise
    return True
