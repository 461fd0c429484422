"""The progress counter: which event a CPU counts guest progress by, and the self-test that it has to pass.

The algorithm is in docs/progress.md, its C in cbits/vcpu/counter.c and cbits/element/align.c.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dwcvmm.core.counter import count_run
from dwcvmm.kvm.vcpu import Vcpu

PERF_TYPE_HARDWARE, PERF_TYPE_RAW = 0, 4
HW_INSTRUCTIONS = 1
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
NOISE = 64  # events by which the count of an exact loop may be off: on many CPUs each interrupt of the host adds one
NO_OVERFLOW = 1 << 40
LATE = 100_000  # events; an overflow that comes later than this is useless


class Event(StrEnum):
    """What is counted in the guest."""

    INSTRUCTIONS = "instructions"
    BRANCHES = "branches"  # retired conditional branches: exact where instructions are noisy (rr's choice)
    NONE = "none"


@dataclass(frozen=True)
class Model:
    """A generation of CPUs. `branches` is the raw event of retired conditional branches (rr, PerfCounters.cc);
    `skid`: by how many instructions its overflows are late; `note`: its errata."""

    vendor: str
    family: int
    models: frozenset[int]
    name: str
    branches: int
    skid: int
    note: str = ""


def _models(*parts: int | range) -> frozenset[int]:
    return frozenset(m for part in parts for m in ([part] if isinstance(part, int) else part))


INTEL, AMD = "GenuineIntel", "AuthenticAMD"
ANY_MODEL = frozenset(range(256))
MODELS = (
    Model(INTEL, 6, _models(0x1A, 0x1E, 0x1F, 0x2E, 0x25, 0x2C, 0x2F), "Nehalem, Westmere", 0x1C4, 100,
          "conditional branches overcount 0F opcodes on Nehalem, the same each time"),
    Model(INTEL, 6, _models(0x2A, 0x2D, 0x3A, 0x3E, 0x3C, 0x3F, 0x45, 0x46, 0x3D, 0x47, 0x4F, 0x56), "Sandy Bridge to "
          "Broadwell", 0x1C4, 100, "instructions count one more an interrupt and a page fault"),
    Model(INTEL, 6, _models(0x4E, 0x5E, 0x55, 0x8E, 0x9E, 0xA5, 0xA6), "Skylake to Comet Lake", 0x1C4, 100,
          "set freeze_on_smi: SMI handlers leak into counts"),
    Model(INTEL, 6, _models(0x6A, 0x6C, 0x7D, 0x7E, 0x8C, 0x8D, 0xA7), "Ice, Tiger and Rocket Lake", 0x11C4, 100),
    Model(INTEL, 6, _models(0x97, 0x9A, 0xB7, 0xBA, 0xBF, 0x8F, 0xCF, 0xAA, 0xAC, 0xAD), "Alder Lake to Granite Rapids",
          0x11C4, 125, "pin to performance cores"),
    Model(INTEL, 6, _models(0x37, 0x4A, 0x4D, 0x4C, 0x5C, 0x5F, 0x7A, 0x86, 0x96, 0x9C, 0xAF, 0xB6), "Silvermont to "
          "Sierra Forest", 0x7EC4, 100, "erratum SRF7 and its like: overcount at each VM entry and exit"),
    Model(AMD, 0x17, ANY_MODEL, "Zen, Zen 2", 0xD1, 10_000, "unbounded skid; SpecLockMap off; VMRUN is a branch"),
    Model(AMD, 0x19, ANY_MODEL, "Zen 3, Zen 4", 0xD1, 10_000, "unbounded skid; SpecLockMap off; VMRUN is a branch"),
    Model(AMD, 0x1A, ANY_MODEL, "Zen 5", 0xD1, 10_000, "unbounded skid; VMRUN counts as branch"),
)  # fmt: skip


def this_cpu(cpuinfo: str | None = None) -> Model | None:
    """The row of the first CPU in /proc/cpuinfo, or None for one that is not in the table."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    fields = dict(re.findall(r"^(vendor_id|cpu family|model)\s*:\s*(\S+)$", text.split("\n\n")[0], re.MULTILINE))
    try:
        vendor, family, model = fields["vendor_id"], int(fields["cpu family"]), int(fields["model"])
    except KeyError:
        return None
    for row in MODELS:
        if (row.vendor, row.family) == (vendor, family) and model in row.models:
            return row
    return None


@dataclass(frozen=True)
class Progress:
    """What the self-test found. `event` is NONE if no event can be used; `reason` and `remedy` say why.
    `events_per_ms`: the rate measured in its loop, as a first estimate."""

    event: Event
    reason: str
    remedy: str = ""
    perf_type: int = 0
    config: int = 0
    events_per_ms: int = 0

    def __bool__(self) -> bool:
        return self.event is not Event.NONE


def lateness(progress: Progress, vcpu: Vcpu, load: Callable[[], None], at: int, times: int) -> list[int]:
    """By how many events each of `times` overflows was late that was to end a guest at `at`; `load` as of self_test."""
    late = []
    for _ in range(times):
        load()
        _, count, _ = count_run(vcpu.fd, vcpu.run_page, progress.perf_type, progress.config, at)
        late.append(count - at)
    return late


REFUSALS = {
    errno.ENOENT: ("there is no PMU, or not this event", "use a host with a PMU; in a VM, switch its vPMU on"),
    errno.EOPNOTSUPP: (
        "guest-only counting is refused",
        "no PMU, or another VM has the mediated vPMU (kvm module parameter)",
    ),
    errno.ENODEV: (
        "the counter cannot be scheduled",
        "free a counter: NMI watchdog off (kernel.nmi_watchdog=0), no other perf",
    ),
    errno.EACCES: ("not allowed", f"write 1 to {PARANOID}, or use CAP_PERFMON"),
    errno.EPERM: ("not allowed", f"write 1 to {PARANOID}, or use CAP_PERFMON"),
    errno.EBUSY: ("the PMU is taken", "stop the VM that uses the mediated vPMU"),
    errno.ENOSYS: ("this kernel has no perf events", "use a kernel with CONFIG_PERF_EVENTS"),
}


def self_test(event: Event, vcpu: Vcpu, load: Callable[[], None], instructions: int, branches: int) -> Progress:
    """Count a guest loop of known length on `vcpu`, then end it by an overflow in its middle.

    `load` puts the vCPU to the loop's start; the loop ends in an exit after `instructions`, `branches` of them
    conditional branches.
    """
    model = this_cpu()
    if event is Event.NONE:
        return Progress(event, "not wanted")
    if event is Event.BRANCHES and model is None:
        return Progress(Event.NONE, "this CPU is not in the table of branch events", "use instructions")
    perf_type, config, expected = PERF_TYPE_HARDWARE, HW_INSTRUCTIONS, instructions
    if event is Event.BRANCHES and model is not None:
        perf_type, config, expected = PERF_TYPE_RAW, model.branches, branches
    load()
    status, count, ran_ns = count_run(vcpu.fd, vcpu.run_page, perf_type, config, NO_OVERFLOW)
    if status < 0:
        reason, remedy = REFUSALS.get(-status, (f"perf_event_open: {errno.errorcode.get(-status, status)}", ""))
        return Progress(Event.NONE, reason, remedy)
    if abs(count - expected) > NOISE:
        return Progress(Event.NONE, f"a loop of {expected} {event} counted {count}", "use another event (--progress)")
    rate = count * 1_000_000 // max(1, ran_ns)
    load()
    status, count, _ = count_run(vcpu.fd, vcpu.run_page, perf_type, config, expected // 2)
    if status != 1 or not expected // 2 <= count < expected // 2 + LATE:
        return Progress(Event.NONE, f"an overflow at {expected // 2} ended the guest at {count}", "no realtime kernel")
    late = count - expected // 2
    reason = f"{event}: a loop of {expected} counts so, within {NOISE}; an overflow came {late} late"
    return Progress(event, reason, "", perf_type, config, max(1, rate))
