"""libnbd by ctypes: the functions that are used, as of version 1.14 (libnbd(3))."""

from __future__ import annotations

import ctypes
import errno
import functools

from dwcvmm.errors import HostError

NAME = "libnbd.so.0"
READ, WRITE = 1, 2  # LIBNBD_AIO_DIRECTION_*
FLAG_NO_HOLE = 2  # LIBNBD_CMD_FLAG_NO_HOLE
MINIMUM = 0  # LIBNBD_SIZE_MINIMUM


class Completion(ctypes.Structure):
    """nbd_completion_callback, passed by value; all zeros: none."""

    _fields_ = (("callback", ctypes.c_void_p), ("user_data", ctypes.c_void_p), ("free", ctypes.c_void_p))


HANDLE, SIZE, NUMBER, FLAGS = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_uint32
INT, COOKIE, TEXT = ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
# name: type of the result, types of the arguments behind the handle
FUNCTIONS = {
    "close": (None,),
    "set_export_name": (INT, TEXT),
    "aio_connect_socket": (INT, INT),
    "aio_get_fd": (INT,),
    "aio_get_direction": (ctypes.c_uint,),
    "aio_notify_read": (INT,),
    "aio_notify_write": (INT,),
    "aio_is_ready": (INT,),
    "aio_is_dead": (INT,),
    "aio_is_closed": (INT,),
    "aio_command_completed": (INT, NUMBER),
    "aio_disconnect": (INT, FLAGS),
    "aio_pread": (COOKIE, HANDLE, SIZE, NUMBER, Completion, FLAGS),
    "aio_pwrite": (COOKIE, TEXT, SIZE, NUMBER, Completion, FLAGS),
    "aio_flush": (COOKIE, Completion, FLAGS),
    "aio_trim": (COOKIE, NUMBER, NUMBER, Completion, FLAGS),
    "aio_zero": (COOKIE, NUMBER, NUMBER, Completion, FLAGS),
    "get_size": (COOKIE,),
    "get_block_size": (COOKIE, INT),
    "is_read_only": (INT,),
    "can_flush": (INT,),
    "can_trim": (INT,),
    "can_zero": (INT,),
}


@functools.cache
def library() -> ctypes.CDLL:
    """Raises HostError if it is not installed."""
    try:
        loaded = ctypes.CDLL(NAME)
    except OSError as error:
        raise HostError("there is no libnbd on this host", "install it (Debian: libnbd0)") from error
    loaded.nbd_create.restype = HANDLE
    loaded.nbd_get_error.restype = TEXT
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(loaded, f"nbd_{name}")
        function.restype, function.argtypes = result, [HANDLE, *arguments]
    return loaded


def last_error(loaded: ctypes.CDLL) -> OSError:
    """What the last call of this thread failed for. A server can send any number (doc/proto.md, "Error values")."""
    text = (loaded.nbd_get_error() or b"").decode(errors="replace")
    _, _, reason = text.partition(": ")  # behind the function's name
    return OSError(loaded.nbd_get_errno() or errno.EIO, reason or text or "no reason is given")
