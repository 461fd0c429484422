"""The report file, `dwcvmm-report/1`: fields, units, meaning. docs/report.md is for readers.

Decoding is strict: an unknown field or a wrong type is an error (`load`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dwcvmm.errors import ConfigError
from dwcvmm.results.jsonfile import NOT_JSON, pretty_json, read_json_file

SCHEMA = "dwcvmm-report/1"


class Elements(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    committed: int
    by_end: dict[str, int]  # KVM exit names; "intr": by an overflow or single steps; "debug": time sites in ring 3
    unprotected: int  # committed without comparison: 0 unless the strategy is off
    inner_exits: int = 0  # exits that ended no element
    handovers: int = 0  # jobs that one thread has given to the other; 0 in reports of older versions


class Divergences(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    total: int
    by_cause: dict[str, int]
    unexplained: int


class Pages(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    compared: int
    copied: int  # to the checkpoint, because the content had changed
    hot_max: int  # most pages compared in one element


class Phases(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Seconds of wall time, which they add up to. Under `parallel`, second_run is how long e1 had to wait for e2.

    Fields with a default are 0 in reports of older versions, where `other` has their time.
    """

    first_run: float
    second_run: float
    compare_commit: float
    rollback: float  # since there is `replay`, without that
    device: float  # in C
    other: float  # what has no name
    restore: float = 0.0  # in-place: setting aside what e1 left, restoring the VM, and emptying the TLB before e1
    flush: float = 0.0  # in-place: flushing caches
    registers: float = 0.0  # reading those that do not come with an exit
    dirty_log: float = 0.0  # reading and clearing
    counter: float = 0.0  # arming and reading the progress counter
    tick_wait: float = 0.0  # waiting for a tick of the frozen TSC
    handover: float = 0.0  # from one thread to the other and back, without what they do
    between: float = 0.0  # between elements: inputs, interrupts, requests from outside
    python: float = 0.0  # devices in Python, the console, what follows a divergence
    alignment: float = 0.0
    discarded: float = 0.0  # runs of elements that were not committed
    replay: float = 0.0  # after a restore
    search: float = 0.0  # for instructions that read a value of the host
    steps: float = 0.0  # single steps that end elements
    scrub: float = 0.0
    idle: float = 0.0  # real time passes while the guest waits
    start: float = 0.0  # before the first element
    end: float = 0.0  # after the last one


class Stepping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Elements ended or aligned by single steps rather than by a counter."""

    elements: int
    instructions: int
    discarded: int
    window_catch_ups: int
    window_catch_up_instructions: int


class Slices(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Elements ended by an overflow (docs/progress.md). Histograms: bucket n counts values below 2**n."""

    progress: str  # what is counted: instructions, branches, none
    tsc: str  # frozen, or sites
    ended: int
    catch_ups: int
    debug_exits: int
    count_distance: list[int]  # |n1 - n2|: events between the stops of both replicas
    skid: list[int]  # by how many events e1 stopped late
    longest_element_us: float  # by the host's clock, including what else the host did meanwhile
    longest_element_slices: float  # by the count, of elements ended by an overflow
    tick_waits: int  # entries that would have met a tick of the frozen TSC, and waited for it


class FaultFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fault that `--fault` asked for. Elements are counts of committed ones."""

    fault: str  # its text (dwcvmm/faults/model.py)
    element: int  # the fault was injected into it
    became: str  # injected; or: refused by KVM, not reached
    steps: int | None  # instructions into the element, if single steps led there
    detected_at: int | None  # element; null if no divergence has shown the fault
    latency_us: float | None  # from the injection to the comparison that showed the fault, in host time
    latent: bool  # when the guest ended the wrong byte was still there, unused
    repaired: bool  # by the scrubber


class Votes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Runs that showed something else than what was committed in the end (dwcvmm/element/voting.py)."""

    policy: str  # restart, vote, stop
    lost: dict[str, int]  # by e1 and e2
    lost_by_cpu: dict[str, int]  # only of replicas that are bound to a CPU
    suspect_cpus: list[int]  # lost repeatedly; under `vote` their replicas were moved


class Scrub(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The scrubber's work (cbits/memory/scrub.c), and what rollbacks have repaired in the checkpoint."""

    bytes_per_s: int  # asked for; 0: off
    pages: int
    passes: int
    seconds: float
    repairs: dict[str, int]  # by copy: e1, e2, checkpoint; none: no copy was right
    checkpoint_repairs: int  # by rollbacks


class NetTraffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frames that have passed a network device in one direction."""

    frames: int
    bytes: int  # of them
    dropped: int  # frames: no room in the socket or interface, no buffer that is large enough, no frame at all


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network device (dwcvmm/pc/devices/virtio/net.py)."""

    backend: str  # passt, tap, socket
    mac: str
    link_up: bool  # at the end
    received: NetTraffic  # by the guest
    sent: NetTraffic


class HostFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kvm_module: str
    kernel: str
    cpu: str
    cpus: int
    shadow_paging: bool
    exit_ns: int  # a port output to the VMM and back, median


class GuestFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kernel: str
    kernel_sha256: str
    initrd: str | None
    command_line: str
    memory_bytes: int
    status: int  # what the guest wrote to the debug exit
    time_sites: int  # RDTSC instructions replaced by a trap
    time_reads: int
    clock: str
    clock_divisor: int
    rtc: str = ""  # the date at the start, as --rtc takes it


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema: str
    version: str
    outcome: str
    strategy: str
    cache_flush: str = "none"  # of in-place
    slice_ns: int
    wall_s: float
    guest_s: float
    elements: Elements
    divergences: Divergences
    normalised: dict[str, int]
    rollbacks: int
    pages: Pages
    phases_s: Phases
    stepping: Stepping
    slices: Slices
    host: HostFacts
    guest: GuestFacts
    votes: Votes
    scrub: Scrub
    networks: list[Network] = []
    faults: list[FaultFacts] = []
    penalty_percent: float | None = None  # over the wall time of --baseline
    date: str = ""  # of the end, UTC
    command: str = ""
    post_mortem: str | None = None
    error: str | None = None  # the message with which the command ended, if the guest did not end by itself


def encode(report: Report) -> bytes:
    return pretty_json(report)


def load(path: Path) -> Report:
    """Read a report; raises ConfigError if it is not one."""
    try:
        report = msgspec.json.decode(read_json_file(path), type=Report)
    except NOT_JSON as error:
        raise ConfigError(f"{path} is not a {SCHEMA}: {error}") from error
    if report.schema != SCHEMA:
        raise ConfigError(f"{path} has schema {report.schema}, not {SCHEMA}")
    return report


def json_schema() -> bytes:
    """JSON Schema of the report, for other tools."""
    return pretty_json(msgspec.json.schema(Report))
