"""C's enumerations and limits, with the values that the compiler gives them. Each member names its constant."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from dwcvmm.core._binding import ffi, lib

PAGE: int = lib.DWC_PAGE  # bytes
IO_BYTES: int = lib.DWC_IO_BYTES  # of an exit's data, at most
LOG_ELEMENTS: int = lib.DWC_LOG_ELEMENTS  # between checkpoints, at most
MOST_IDLE: int = lib.DWC_MOST_IDLE  # checkpoints
HISTOGRAM: int = lib.DWC_HISTOGRAM  # buckets
MAX_SITES: int = lib.DWC_MAX_SITES
MAX_DIFFS: int = lib.DWC_MAX_DIFFS
LONGEST_INSTRUCTION: int = lib.DWC_LONGEST_INSTRUCTION  # bytes
NEVER = (1 << 64) - 1  # an element or a time that never comes
DEVICE_BYTES: int = lib.DWC_PC_BYTES  # of the devices in C, without what the serial ports have sent
INTERRUPT_BYTES = ffi.offsetof("struct dwc_pc", "pit")  # of the interrupt controllers, with which the devices begin
UARTS: int = lib.DWC_UARTS  # serial ports, at most
SENT_BYTES: int = lib.DWC_SENT_BYTES  # room for what serial ports have sent and the host has not taken
SENT_HEAD: int = lib.DWC_SENT_HEAD  # of each run of bytes in it


VIRTIO_BYTES: int = lib.DWC_VIRTIO_BYTES  # of a virtio device's memory
VIRTIO_PART: int = lib.DWC_VIRTIO_PART  # of each part of it
COMMON_BYTES: int = lib.DWC_VIRTIO_COMMON_BYTES  # of the common configuration
DRIVER_OK: int = lib.DWC_VIRTIO_DRIVER_OK  # of virtio's device status
NEEDS_RESET: int = lib.DWC_VIRTIO_NEEDS_RESET


class Stop(IntEnum):
    """Why the core returns to Python (cbits/status.h)."""

    EXIT = lib.DWC_STOP_EXIT  # a committed exit that no device in C can serve
    CONSOLE = lib.DWC_STOP_CONSOLE  # a serial port has sent something: drain it
    DIVERGED = lib.DWC_STOP_DIVERGED
    TIME_LIMIT = lib.DWC_STOP_TIME_LIMIT  # neither replica reached a natural end in time: nothing is committed
    REQUESTED = lib.DWC_STOP_REQUESTED  # a stop was requested; the current element is not committed
    IDLE = lib.DWC_STOP_IDLE  # HLT, and no interrupt can come from a device in C
    ELEMENT_LIMIT = lib.DWC_STOP_ELEMENT_LIMIT  # the number of elements asked for is committed
    ATTENTION = lib.DWC_STOP_ATTENTION  # another thread has something for the devices
    REPAIRED = lib.DWC_STOP_REPAIRED  # the scrubber has repaired a page
    WAITING = lib.DWC_STOP_WAITING  # windows are inexact here, and an interrupt has waited too long for a natural end
    BREAKPOINT = lib.DWC_STOP_BREAKPOINT  # a committed exit at a debugger's point (dwcvmm/core/debugging.py)
    ELEMENT_START = lib.DWC_STOP_ELEMENT_START  # a visit: the inputs are chosen, and neither replica has started
    BETWEEN_RUNS = lib.DWC_STOP_BETWEEN_RUNS  # a visit, in place: the VM is rewound, e2 comes next
    ELEMENT_END = lib.DWC_STOP_ELEMENT_END  # a visit: both replicas have ended, and nothing has been compared
    RECORDED = lib.DWC_STOP_RECORDED  # much of a recording waits to be taken


class Rollback(IntEnum):
    """The result of a rollback. If it fails the replicas' state is undefined, and the run is over."""

    DONE = lib.DWC_ROLLBACK_DONE
    STOP_REQUESTED = lib.DWC_ROLLBACK_STOP_REQUESTED
    UNREPEATABLE = lib.DWC_ROLLBACK_UNREPEATABLE  # the replay did not arrive at the last committed element
    DAMAGED = lib.DWC_ROLLBACK_DAMAGED  # the checkpoint is not what was saved


class Phase(IntEnum):
    """Where in its life the element is (cbits/phase.h)."""

    BETWEEN = lib.DWC_PHASE_BETWEEN
    FRAGMENT = lib.DWC_PHASE_FRAGMENT
    INPUTS_CHOSEN = lib.DWC_PHASE_INPUTS_CHOSEN
    START_VISITED = lib.DWC_PHASE_START_VISITED
    RUNNING = lib.DWC_PHASE_RUNNING
    FIRST_RUN_DONE = lib.DWC_PHASE_FIRST_RUN_DONE
    BOTH_ENDED = lib.DWC_PHASE_BOTH_ENDED
    COMPARED = lib.DWC_PHASE_COMPARED
    DISCARDED = lib.DWC_PHASE_DISCARDED
    ROLLING_BACK = lib.DWC_PHASE_ROLLING_BACK


class Activity(IntEnum):
    """Where the time of a run goes (cbits/account.h)."""

    BETWEEN = lib.DWC_AT_BETWEEN  # between elements: inputs, interrupts, requests from outside
    FIRST_RUN = lib.DWC_AT_FIRST_RUN
    SECOND_RUN = lib.DWC_AT_SECOND_RUN  # parallel: only what e1 had to wait for it
    REGISTERS = lib.DWC_AT_REGISTERS  # reading those that do not come with an exit
    DIRTY_LOG = lib.DWC_AT_DIRTY_LOG
    COUNTER = lib.DWC_AT_COUNTER  # arming and reading the progress counter
    HANDOVER = lib.DWC_AT_HANDOVER  # between threads
    COMPARE_COMMIT = lib.DWC_AT_COMPARE_COMMIT
    DEVICE = lib.DWC_AT_DEVICE  # in C
    IDLE = lib.DWC_AT_IDLE  # waiting for time or input to pass in reality
    PYTHON = lib.DWC_AT_PYTHON  # between two calls of the core
    DISCARDED = lib.DWC_AT_DISCARDED  # runs of elements that were not committed
    START = lib.DWC_AT_START  # before the first element
    END = lib.DWC_AT_END  # after the last one
    ALIGNMENT = lib.DWC_AT_ALIGNMENT
    ROLLBACK = lib.DWC_AT_ROLLBACK  # without the replay in it
    REPLAY = lib.DWC_AT_REPLAY
    SEARCH = lib.DWC_AT_SEARCH
    STEPS = lib.DWC_AT_STEPS
    SCRUB = lib.DWC_AT_SCRUB
    RESTORE = lib.DWC_AT_RESTORE  # in place, as FLUSH
    FLUSH = lib.DWC_AT_FLUSH
    TICK_WAIT = lib.DWC_AT_TICK_WAIT  # of the frozen TSC


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
    DEVICES = lib.DWC_DIFF_DEVICES


class Strategy(IntEnum):
    OFF = lib.DWC_OFF
    SEQUENTIAL = lib.DWC_SEQUENTIAL
    PARALLEL = lib.DWC_PARALLEL
    IN_PLACE = lib.DWC_IN_PLACE
    REPLAY = lib.DWC_REPLAY  # one VM, compared with a recording


class Replayed(IntEnum):
    """How far a replay of recorded elements has come (cbits/status.h)."""

    WANTS_MORE = lib.DWC_REPLAY_WANTS_MORE
    REACHED = lib.DWC_REPLAY_REACHED  # the element that was wanted
    DIFFERS = lib.DWC_REPLAY_DIFFERS
    MALFORMED = lib.DWC_REPLAY_MALFORMED  # no recording, or a damaged one
    STOP_REQUESTED = lib.DWC_REPLAY_STOP_REQUESTED
    ENDED = lib.DWC_REPLAY_ENDED  # the recording is over
    AT_START = lib.DWC_REPLAY_AT_START  # of the element that is wanted, or that begins at a point
    MET = lib.DWC_REPLAY_MET  # the same: it meets a point when it runs


class Within(IntEnum):
    """The result of a move within a recorded element (cbits/status.h)."""

    DONE = lib.DWC_WITHIN_DONE
    MET = lib.DWC_WITHIN_MET  # a point
    OVER = lib.DWC_WITHIN_OVER  # the element's end has come first
    AT_EXIT = lib.DWC_WITHIN_AT_EXIT  # the next inner exit has
    STUCK = lib.DWC_WITHIN_STUCK  # the next instruction cannot be stepped; the VM's state is undefined
    STOP_REQUESTED = lib.DWC_WITHIN_STOP_REQUESTED


class Part(IntFlag):
    """What of an element's end differs from its recording (cbits/element/replay.h)."""

    EXIT = lib.DWC_REPLAYED_EXIT
    DEVICES = lib.DWC_REPLAYED_DEVICES
    REGISTERS = lib.DWC_REPLAYED_REGISTERS
    XSAVE = lib.DWC_REPLAYED_XSAVE
    MSRS = lib.DWC_REPLAYED_MSRS
    OTHERS = lib.DWC_REPLAYED_OTHERS  # debug registers, or XCRs
    MEMORY = lib.DWC_REPLAYED_MEMORY
    HANG = lib.DWC_REPLAYED_HANG
    STEPS = lib.DWC_REPLAYED_STEPS


class TlbFlush(IntEnum):
    """How a rollback makes KVM forget translations."""

    PGE = lib.DWC_TLB_FLUSH_PGE
    MEMSLOT = lib.DWC_TLB_FLUSH_MEMSLOT


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
    """The trap that can replace RDTSC in ring 3 (cbits/sites/sites.c)."""

    NONE = lib.DWC_USER_TRAP_NONE
    ICEBP = lib.DWC_USER_TRAP_ICEBP
    SYSENTER = lib.DWC_USER_TRAP_SYSENTER


class InsnKind(IntEnum):
    """The core's classes of instructions (cbits/vcpu/insn.h). The first ones read a value of the host."""

    OTHER = lib.DWC_INSN_OTHER
    RDTSC = lib.DWC_READ_RDTSC
    RDTSCP = lib.DWC_READ_RDTSCP
    RDRAND = lib.DWC_READ_RDRAND
    RDSEED = lib.DWC_READ_RDSEED
    RDPID = lib.DWC_READ_RDPID
    XGETBV = lib.DWC_READ_XGETBV
    STRING = lib.DWC_INSN_STRING  # with a repeat prefix
    PUSHF = lib.DWC_INSN_PUSHF
    STI = lib.DWC_INSN_STI
    LOAD_SS = lib.DWC_INSN_LOAD_SS  # MOV SS, POP SS
    INT = lib.DWC_INSN_INT  # INT n, INT3, INTO
    ICEBP = lib.DWC_INSN_ICEBP
    HLT = lib.DWC_INSN_HLT
    SYSCALL = lib.DWC_INSN_SYSCALL  # and SYSENTER, SYSEXIT
    SYSRET = lib.DWC_INSN_SYSRET

    @property
    def bit(self) -> int:
        """In a set of kinds."""
        return 1 << self


class PowerEnd(IntEnum):
    """Whether the guest has ended the run (cbits/pc/power.h)."""

    ON = lib.DWC_POWER_ON
    OFF = lib.DWC_POWER_OFF
    RESET = lib.DWC_POWER_RESET


class VirtioPart(IntEnum):
    """Parts of a virtio device's memory, by their offsets (cbits/pc/virtio.h)."""

    COMMON = lib.DWC_VIRTIO_COMMON
    ISR = lib.DWC_VIRTIO_ISR
    DEVICE = lib.DWC_VIRTIO_DEVICE
    NOTIFY = lib.DWC_VIRTIO_NOTIFY
    TABLE = lib.DWC_VIRTIO_TABLE  # of MSI-X
    PENDING = lib.DWC_VIRTIO_PENDING


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
