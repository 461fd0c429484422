"""C's enumerations and limits, with the values that the compiler gave them. Each member names its constant."""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag, auto

from dwcvmm.core._binding import lib

PAGE: int = lib.DWC_PAGE  # bytes
IO_BYTES: int = lib.DWC_IO_BYTES  # of an exit's data, at most
LOG_ELEMENTS: int = lib.DWC_LOG_ELEMENTS  # between checkpoints, at most
HISTOGRAM: int = lib.DWC_HISTOGRAM  # buckets
MAX_SITES: int = lib.DWC_MAX_SITES
MAX_DIFFS: int = lib.DWC_MAX_DIFFS
LONGEST_READ: int = lib.DWC_LONGEST_READ  # bytes of an instruction that reads what is the host's
NEVER = (1 << 64) - 1  # an element, or a time, that does not come
UART_TX: int = lib.DWC_UART_TX  # bytes that wait to be drained, at most


class Status(IntEnum):
    """Why the core came back from running elements (cbits/status.h)."""

    EXIT_PYTHON = lib.DWC_EXIT_PYTHON
    CONSOLE = lib.DWC_CONSOLE
    DIVERGED = lib.DWC_DIVERGED
    SLICE_UP = lib.DWC_SLICE_UP
    STOPPED = lib.DWC_STOPPED
    IDLE = lib.DWC_IDLE
    ELEMENT_LIMIT = lib.DWC_ELEMENT_LIMIT
    ATTENTION = lib.DWC_ATTENTION
    WAITING = lib.DWC_WAITING
    ELEMENT_START = lib.DWC_ELEMENT_START
    ELEMENT_END = lib.DWC_ELEMENT_END
    REPAIRED = lib.DWC_REPAIRED
    BETWEEN_RUNS = lib.DWC_BETWEEN_RUNS


class Rollback(Enum):
    """What became of a rollback."""

    DONE = auto()  # both replicas stand at the last committed state
    STOPPED = auto()  # a stop was requested meanwhile; the replicas stand anywhere, as in the cases below
    DAMAGED = auto()  # the checkpoint is not what was saved
    ASTRAY = auto()  # the replay did not arrive at the last committed element


class Diff(IntFlag):
    """What two replicas can disagree about."""

    EXIT = lib.DWC_DIFF_EXIT
    REGS = lib.DWC_DIFF_REGS
    SREGS = lib.DWC_DIFF_SREGS
    EVENTS = lib.DWC_DIFF_EVENTS
    XSAVE = lib.DWC_DIFF_XSAVE
    MSRS = lib.DWC_DIFF_MSRS
    DEBUGREGS = lib.DWC_DIFF_DEBUGREGS
    XCRS = lib.DWC_DIFF_XCRS
    MEMORY = lib.DWC_DIFF_MEMORY
    HANG = lib.DWC_DIFF_HANG


class Strategy(IntEnum):
    OFF = lib.DWC_OFF
    SEQUENTIAL = lib.DWC_SEQUENTIAL
    PARALLEL = lib.DWC_PARALLEL
    IN_PLACE = lib.DWC_IN_PLACE


class TlbFlush(IntEnum):
    """How a rollback makes KVM forget translations."""

    PGE = lib.DWC_FLUSH_PGE
    MEMSLOT = lib.DWC_FLUSH_MEMSLOT


class CacheFlush(IntEnum):
    """In place, before e2."""

    NONE = lib.DWC_CACHE_KEPT
    DIRTY = lib.DWC_CACHE_DIRTY
    ALL = lib.DWC_CACHE_ALL


class Copy(IntEnum):
    """The copies of guest RAM."""

    A = lib.DWC_COPY_A
    B = lib.DWC_COPY_B
    CHECKPOINT = lib.DWC_COPY_CHECKPOINT
    NONE = lib.DWC_COPIES  # of a repair: none of the three was right


class UserTrap(IntEnum):
    """What can stand for RDTSC in ring 3 (cbits/vcpu/sites.c)."""

    NONE = lib.DWC_USER_TRAP_NONE
    ICEBP = lib.DWC_USER_TRAP_ICEBP
    SYSENTER = lib.DWC_USER_TRAP_SYSENTER


class ReadKind(IntEnum):
    """What an instruction reads of the host."""

    NOTHING = lib.DWC_READ_NOTHING
    RDTSC = lib.DWC_READ_RDTSC
    RDTSCP = lib.DWC_READ_RDTSCP
    RDRAND = lib.DWC_READ_RDRAND
    RDSEED = lib.DWC_READ_RDSEED
    RDPID = lib.DWC_READ_RDPID
    XGETBV = lib.DWC_READ_XGETBV

    @property
    def bit(self) -> int:
        """In a set of kinds."""
        return 1 << self


class KvmExit(IntEnum):
    """Reasons of an exit: KVM_EXIT_* of <linux/kvm.h>. KVM may have others: numbers of exits are plain int."""

    UNKNOWN = lib.KVM_EXIT_UNKNOWN
    EXCEPTION = lib.KVM_EXIT_EXCEPTION
    IO = lib.KVM_EXIT_IO
    HYPERCALL = lib.KVM_EXIT_HYPERCALL
    DEBUG = lib.KVM_EXIT_DEBUG
    HLT = lib.KVM_EXIT_HLT
    MMIO = lib.KVM_EXIT_MMIO
    IRQ_WINDOW_OPEN = lib.KVM_EXIT_IRQ_WINDOW_OPEN
    SHUTDOWN = lib.KVM_EXIT_SHUTDOWN
    FAIL_ENTRY = lib.KVM_EXIT_FAIL_ENTRY
    INTR = lib.KVM_EXIT_INTR
    SET_TPR = lib.KVM_EXIT_SET_TPR
    TPR_ACCESS = lib.KVM_EXIT_TPR_ACCESS
    NMI = lib.KVM_EXIT_NMI
    INTERNAL_ERROR = lib.KVM_EXIT_INTERNAL_ERROR
    SYSTEM_EVENT = lib.KVM_EXIT_SYSTEM_EVENT
    DIRTY_RING_FULL = lib.KVM_EXIT_DIRTY_RING_FULL
    X86_RDMSR = lib.KVM_EXIT_X86_RDMSR
    X86_WRMSR = lib.KVM_EXIT_X86_WRMSR


class Cap(IntEnum):
    """KVM_CAP_* of <linux/kvm.h>."""

    SYNC_REGS = lib.KVM_CAP_SYNC_REGS
    XCRS = lib.KVM_CAP_XCRS
    DIRTY_LOG_RING = lib.KVM_CAP_DIRTY_LOG_RING
    MANUAL_DIRTY_LOG_PROTECT2 = lib.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2
    EXIT_ON_EMULATION_FAILURE = lib.KVM_CAP_EXIT_ON_EMULATION_FAILURE
    TSC_CONTROL = lib.KVM_CAP_TSC_CONTROL
    EXCEPTION_PAYLOAD = lib.KVM_CAP_EXCEPTION_PAYLOAD
    IMMEDIATE_EXIT = lib.KVM_CAP_IMMEDIATE_EXIT
    X86_USER_SPACE_MSR = lib.KVM_CAP_X86_USER_SPACE_MSR
    SET_TSS_ADDR = lib.KVM_CAP_SET_TSS_ADDR


class GuestDebug(IntFlag):
    """KVM_GUESTDBG_* of <linux/kvm.h>."""

    ENABLE = lib.KVM_GUESTDBG_ENABLE
    SINGLESTEP = lib.KVM_GUESTDBG_SINGLESTEP
    USE_HW_BP = lib.KVM_GUESTDBG_USE_HW_BP


class MemFlags(IntFlag):
    """KVM_MEM_* of <linux/kvm.h>."""

    LOG_DIRTY_PAGES = lib.KVM_MEM_LOG_DIRTY_PAGES
    READONLY = lib.KVM_MEM_READONLY


class SyncRegs(IntFlag):
    """KVM_SYNC_X86_* of <linux/kvm.h>."""

    REGS = lib.KVM_SYNC_X86_REGS
    SREGS = lib.KVM_SYNC_X86_SREGS
    EVENTS = lib.KVM_SYNC_X86_EVENTS


MANUAL_PROTECT_ENABLE: int = lib.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
TSC_CTRL: int = lib.KVM_VCPU_TSC_CTRL  # KVM_VCPU_*: an attribute's group, and the attribute
TSC_OFFSET: int = lib.KVM_VCPU_TSC_OFFSET
