"""The sandbox: a seccomp filter, by libseccomp, that limits system calls once the guest runs.

All files are open by then: /dev/kvm, disks, results. No file can be opened, no program run, no process or socket made,
no memory made executable. Connections can be accepted at the sockets of control, console and serial ports, and at no
other. So an attacker who has taken over the VMM from inside the guest has only the open descriptors, and what they are
used for.
Requests of ioctl(2) are allowed one by one: those that are not include TIOCSTI, which types into the user's shell, and
KVM's requests that make VMs, devices and events. A call that is not allowed fails with EPERM, so if the list lacks a
call that the VMM needs there is a message, not a dead guest.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import termios
from collections.abc import Collection
from dataclasses import dataclass

from dwcvmm.core.kvmstructs import ioctl_number
from dwcvmm.errors import ConfigError, HostError

ALLOW, REFUSE, NOT_THERE = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
ALL_THREADS = 4  # SCMP_FLTATR_CTL_TSYNC
MASKED_EQUAL, ALL_BITS = 7, (1 << 64) - 1  # of enum scmp_compare
PROT_EXEC, CLONE_THREAD = 4, 0x10000
REQUEST = 0xFFFFFFFF  # the part of an ioctl's request that the kernel uses

GROUPS = "REGS SREGS XSAVE XCRS DEBUGREGS VCPU_EVENTS MSRS"
OF_RUNNING = "RUN INTERRUPT SET_GUEST_DEBUG GET_DIRTY_LOG CLEAR_DIRTY_LOG SET_USER_MEMORY_REGION SET_DEVICE_ATTR"
ATTRIBUTES = "TCGETS TCSETS TCSETSW TCSETSF TIOCGWINSZ"
# those that cbits and dwcvmm/faults use while a guest runs, and those of a post-mortem
KVM_NAMES = [f"KVM_{way}_{group}" for way in ("GET", "SET") for group in GROUPS.split()]
KVM_NAMES += [f"KVM_{name}" for name in OF_RUNNING.split()]
KVM_REQUESTS = {"KVM_NMI": 0xAE9A} | {name: ioctl_number(name) for name in KVM_NAMES}
PERF_REQUESTS = {  # <linux/perf_event.h>; the counters themselves are open
    "PERF_EVENT_IOC_ENABLE": 0x2400,
    "PERF_EVENT_IOC_DISABLE": 0x2401,
    "PERF_EVENT_IOC_RESET": 0x2403,
    "PERF_EVENT_IOC_PERIOD": 0x40082404,
}
TERMINAL_REQUESTS = {  # the terminal's modes, also in the form of newer C libraries, and the window's size
    **{name: int(getattr(termios, name)) for name in ATTRIBUTES.split()},
    "TCGETS2": 0x802C542A,
    "TCSETS2": 0x402C542B,
    "TCSETSW2": 0x402C542C,
    "TCSETSF2": 0x402C542D,
}
CONNECTION_REQUESTS = {"FIONBIO": 0x5421}  # so that a client of the control socket that does not read is not waited for
REQUESTS = KVM_REQUESTS | PERF_REQUESTS | TERMINAL_REQUESTS | CONNECTION_REQUESTS
# not F_SETOWN: with F_SETSIG it could send any signal to any process of the user
FCNTL = (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD_CLOEXEC, fcntl.F_OFD_SETLK)

FILES = (
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek fsync fdatasync ftruncate"
    " close dup dup2 flock"
)
ABOUT_FILES = "fstat newfstatat stat lstat statx getcwd readlink"
MEMORY = "brk munmap mremap madvise"
THREADS = "futex set_robust_list rseq exit exit_group restart_syscall sched_yield sched_getaffinity"
SIGNALS = "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending sigaltstack"
WAITING = "poll ppoll select pselect6 epoll_wait epoll_pwait epoll_ctl epoll_create1 pipe2 nanosleep clock_nanosleep"
TIME = "clock_gettime clock_getres gettimeofday time timer_create timer_settime timer_delete setitimer"
OURSELVES = "getpid gettid getuid geteuid getgid getegid uname getrandom getrusage sysinfo times getcpu"
# FALLOC_FL_KEEP_SIZE with PUNCH_HOLE, ZERO_RANGE: what disks are asked to discard and to clear
HOLE, ZEROS = 3, 17
ALLOWED = " ".join((FILES, ABOUT_FILES, MEMORY, THREADS, SIGNALS, WAITING, TIME, OURSELVES)).split()


@dataclass(frozen=True)
class When:
    """A condition on an argument: it must be `value` under `mask`."""

    argument: int
    value: int
    mask: int = ALL_BITS


def _conditions(listening: Collection[int] = ()) -> list[tuple[str, When]]:
    """Calls that are allowed only in certain forms, one form a line. `listening`: descriptors to accept from."""
    return [
        *(("accept4", When(0, fd)) for fd in listening),
        *(("ioctl", When(1, request, REQUEST)) for request in REQUESTS.values()),
        *(("fcntl", When(1, command, REQUEST)) for command in FCNTL),
        *(("fallocate", When(1, mode, REQUEST)) for mode in (HOLE, ZEROS)),
        ("mmap", When(2, 0, PROT_EXEC)),
        ("mprotect", When(2, 0, PROT_EXEC)),
        ("clone", When(0, CLONE_THREAD, CLONE_THREAD)),
        ("tgkill", When(0, os.getpid())),
        ("sched_setaffinity", When(0, 0)),  # of the calling thread
    ]


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise ConfigError("there is no libseccomp: install libseccomp2, or use --no-sandbox") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison))
    ]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return library


class Sandbox:
    """Make it before the guest runs, since it loads a library. `enter` can be called once and cannot be undone.
    `listening`: descriptors of sockets whose connections can be accepted, by accept4(2); they are read and written as
    files.

    Raises ConfigError without libseccomp, HostError if the kernel refuses.
    """

    def __init__(self, listening: Collection[int] = ()) -> None:
        self._library = _library()
        self._context = self._library.seccomp_init(REFUSE)
        if not self._context:
            raise HostError("seccomp_init failed")
        self._check(self._library.seccomp_attr_set(self._context, ALL_THREADS, 1))
        for name in ALLOWED:
            self._rule(ALLOW, name)
        for name, when in _conditions(listening):
            self._rule(ALLOW, name, when)
        self._rule(NOT_THERE, "clone3")  # a filter cannot see its flags; the C library then uses clone

    def allow_traffic(self, connected: Collection[int]) -> None:
        """Before `enter`: descriptors of connected sockets that libraries use by recv(2) and send(2)."""
        for fd in connected:
            for name in ("recvfrom", "sendto"):
                self._rule(ALLOW, name, When(0, fd), When(4, 0))

    def enter(self) -> None:
        """Apply the filter to all threads of the process, and set no_new_privs (seccomp(2), prctl(2))."""
        self._check(self._library.seccomp_load(self._context))
        self._library.seccomp_release(self._context)

    def _rule(self, action: int, name: str, *when: When) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        each = [_Comparison(one.argument, MASKED_EQUAL, one.mask, one.value) for one in when]
        comparisons = (_Comparison * len(each))(*each)
        status = self._library.seccomp_rule_add_array(self._context, action, number, len(each), comparisons)
        self._check(status, name)

    @staticmethod
    def _check(status: int, what: str = "the filter") -> None:
        if status:
            raise HostError(f"seccomp refuses {what}: {os.strerror(-status)}")
