"""The core's engine (cbits/engine.h): it runs elements on two replicas, compares, commits, and rolls back.

Methods must be called on the thread that started it, except those that say "from any thread". If the host refuses
something they raise KvmError, after which the state of the replicas is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.chipset import Chipset
from dwcvmm.core.config import Config, in_c
from dwcvmm.core.enums import PAGE, Activity, Copy, Diff, InsnKind, KvmExit, Phase, Rollback, Stop, Strategy, UserTrap
from dwcvmm.core.failure import Damaged, check, fail
from dwcvmm.core.fields import Flag, Number, View
from dwcvmm.core.ram import Ram
from dwcvmm.core.replica import Replica
from dwcvmm.core.state import Exit, State, Stats

STOPS = {int(stop): stop for stop in Stop}  # faster than Stop(number)


class Repair(NamedTuple):
    """A page that the scrubber found wrong, and the copy that was repaired (NONE: no copy was right)."""

    copy: Copy
    gpa: int


class Search(View):
    """What the last search for an instruction that reads a value of the host found, and where it ended."""

    __slots__ = ()
    gpa, linear = Number("gpa"), Number("linear")  # of the instruction
    steps = Number("steps")  # single steps that it took
    exit_reason, rip = Number("exit_reason"), Number("rip")  # of the exit that ended it
    user, long_mode = Flag("user"), Flag("long_mode")  # in ring 3; in 64-bit code
    split = Flag("split")  # crosses into a page that is not adjacent in guest memory
    timed_out = Flag("timed_out")

    @property
    def kind(self) -> InsnKind:
        """Of the instruction found, or OTHER."""
        return InsnKind(self._c.read.kind)


class Core(View):
    """The core's engine for one guest. Views of it are live: they show the present state."""

    __slots__ = ("checkpoint_ram", "chipset", "replicas", "stats")
    guest_ns = Number("clock.guest_ns")  # the guest clock
    clock_divisor = Number("config.clock_divisor")
    checkpoint_every = Number("config.checkpoint_every")
    memory_every_ns = Number("config.memory_every_ns")
    ram_bytes, hang_ns = Number("config.ram_bytes"), Number("config.hang_ns")
    budget = Number("slice.budget")  # of the progress counter, for a slice
    site_count, site_reads = Number("sites.count"), Number("sites.reads")
    log_count = Number("log.count")  # elements committed since the checkpoint
    diff_count = Number("divergence.page_count")  # pages that differ, also those without room in `differing_pages`
    counting, has_xcrs = Flag("config.counting"), Flag("config.has_xcrs")

    def __init__(self, config: Config) -> None:
        """The caller fills the memory and sets up the VMs. Raises KvmError."""
        c = ffi.gc(ffi.new("struct dwc_engine *"), lib.dwc_engine_free)
        super().__init__(c, c)
        check("make engine", lib.dwc_engine_init(c, in_c(config)))
        self.chipset = Chipset(ffi.addressof(c, "pc"), c)
        self.stats = Stats(c.stats, c)
        self.checkpoint_ram = Ram(c, Copy.CHECKPOINT, config.checkpoint_ram)
        self.replicas: Sequence[Replica] = tuple(
            Replica(c.replicas[index], c, Ram(c, Copy(index), replica.ram))
            for index, replica in enumerate(config.replicas)
        )

    # views

    @property
    def committed(self) -> int:
        """Elements committed so far."""
        return int(self._c.stats.committed)

    @property
    def phase(self) -> Phase:
        return Phase(self._c.phase)

    @property
    def strategy(self) -> Strategy:
        return Strategy(self._c.config.strategy)

    @property
    def user_trap(self) -> UserTrap:
        return UserTrap(self._c.config.user_trap)

    @property
    def msrs(self) -> tuple[int, ...]:
        """Indices of the MSRs that are saved and compared."""
        return tuple(self._c.config.msr_index[0 : self._c.config.msr_count])

    @property
    def exit(self) -> Exit:
        """The committed exit that ended the last element."""
        return Exit.within(self._c.exit, self._c)

    @property
    def checkpoint_state(self) -> State:
        return State.within(self._c.checkpoint.state, self._c)

    @property
    def committed_state(self) -> State:
        """The synced groups as of the last committed element."""
        return State.within(self._c.log.committed if self._c.log.count else self._c.checkpoint.state, self._c)

    @property
    def ends_at_inner_exit(self) -> bool:
        """Whether the current element, which was cut, is to end at its last inner exit when it is run again."""
        return bool(self._c.inner_limit != lib.DWC_NO_LIMIT)

    @property
    def without_exit_ns(self) -> int:
        """For how long the element that was cut last had run since its start, or its last inner exit, in host time."""
        return int(self._c.cut.without_exit_ns)

    @property
    def waited_in_loop(self) -> bool:
        """Whether the element was cut while the guest waited for something in a loop that changes no register."""
        return bool(self._c.cut.waits)

    @property
    def stretch(self) -> int:
        """By how much longer an element may take if the guest computes than if it waits in a loop."""
        return int(self._c.clock.stretch)

    @property
    def vector(self) -> int | None:
        """The vector of the interrupt injected at the start of the current element."""
        vector = int(self._c.inputs.vector)
        return vector if vector >= 0 else None

    @property
    def diff(self) -> Diff:
        """What differed in the last comparison that failed."""
        return Diff(self._c.divergence.groups)

    @property
    def differing_pages(self) -> list[int]:
        """Guest physical addresses of pages that differed then, at most MAX_DIFFS."""
        divergence = self._c.divergence
        return [int(gpa) for gpa in divergence.gpa[0 : min(divergence.page_count, lib.DWC_MAX_DIFFS)]]

    @property
    def dirty_pages(self) -> list[int]:
        """Guest physical addresses of the pages in either dirty log of this element."""
        return [int(entry.page) * PAGE for entry in self._c.dirty.pages[0 : self._c.dirty.count]]

    @property
    def hot_pages(self) -> int:
        """How many pages were compared at the last comparison of memory. From any thread."""
        return int(self._c.dirty.count)

    def touched_pages(self) -> Iterator[int]:
        """Guest physical addresses of all pages that were written in any copy: by the guest as far as dirty logs have
        been read, by the VMM, or by a fault. All others are zeros in all copies.
        """
        gpa = lib.dwc_next_touched(self._c, 0)
        while gpa != lib.DWC_NO_PAGE:
            yield int(gpa)
            gpa = lib.dwc_next_touched(self._c, gpa + PAGE)

    @property
    def met_points(self) -> bool:
        """Whether a debugger's points were met, and not been taken note of (dwcvmm/core/debugging.py)."""
        return bool(self._c.points.hits)

    @property
    def repair(self) -> Repair:
        """The last page that the scrubber found wrong."""
        return Repair(Copy(self._c.scrub.repair_copy), int(self._c.scrub.repair_gpa))

    @property
    def search(self) -> Search:
        return Search(self._c.search, self._c)

    def ram(self, copy: Copy) -> Ram:
        return self.checkpoint_ram if copy is Copy.CHECKPOINT else self.replicas[copy].ram

    def spent_ns(self, activity: Activity) -> int:
        """Of the runs so far; a run that goes on counts up to the last change of activity."""
        return int(self._c.account.ns[activity])

    # start, run, stop

    def begin_account(self) -> None:
        """Account for time from now on: the caller lets the guest run."""
        lib.dwc_account_begin(self._c)

    def end_account(self, guest_ended: bool) -> None:
        """Account for time no more, until it begins again."""
        lib.dwc_account_end(self._c, guest_ended)

    def start(self) -> None:
        """What is in replica A's RAM and vCPU is what the first element starts with. Start threads and timers; vCPU 0
        belongs to the calling thread from now on.
        """
        check("start engine", lib.dwc_engine_start(self._c))

    def stop(self) -> None:
        """End threads and timers. Call it on the thread that called start()."""
        lib.dwc_engine_stop(self._c)

    def run(self, last_element: int, visit_from: int) -> Stop:
        """Run elements until Python is needed, until `last_element` are committed in all (0: no limit), or, from
        element `visit_from` on, to the next point for a visit.
        """
        result: int = lib.dwc_engine_run(self._c, last_element, visit_from)
        return STOPS[result] if result > 0 else fail("run element", result)

    def answer(self, data: bytes) -> None:
        """A device's answer to the committed read; the replicas get it with the next element."""
        lib.dwc_engine_answer(self._c, data, len(data))

    def run_until_ns(self, guest_ns: int) -> None:
        """Let run() return with ELEMENT_LIMIT also once the guest clock has come to this; 0: never."""
        self._c.requests.until_ns = guest_ns

    def request_stop(self) -> None:
        """From any thread: make run() return with REQUESTED. The current element is not committed."""
        lib.dwc_engine_request_stop(self._c)

    def request_attention(self, soon: bool = False) -> None:
        """From any thread: make run() return with ATTENTION at the next element's end. `soon`: without waiting for that
        if it takes more than some 20 ms, which TIME_LIMIT tells.
        """
        lib.dwc_engine_request_attention(self._c, soon)

    @property
    def attention_wanted_soon(self) -> bool:
        return bool(self._c.requests.soon)

    def stood(self, ns: int) -> None:
        """The guest has stood between two elements for that long: the guest clock does not count it."""
        lib.dwc_engine_stood(self._c, ns)

    def watch(self, epoll_fd: int) -> None:
        """Before the first run: let news of an epoll descriptor count as requests for attention. Its descriptors are
        edge-triggered, and it stays open as long as elements are run.
        """
        lib.dwc_engine_watch(self._c, epoll_fd)

    def wait_when_idle(self, wanted: bool) -> None:
        """From any thread: let the guest's idle time pass in real time, even with a virtual clock."""
        self._c.clock.idle_waits = wanted

    def be_patient(self, factor: int) -> None:
        """Multiply the time limit of elements by this factor from now on, until the next call."""
        self._c.clock.patience_factor = factor

    def advance_clock(self, guest_ns: int) -> None:
        """Move the guest clock forward, between elements."""
        self._c.clock.guest_ns += guest_ns

    # checkpoints, rollbacks, commits

    def checkpoint_soon(self) -> None:
        """Let the next element end with a checkpoint, if it can."""
        self._c.checkpoint.due = 1

    def checkpoint(self) -> bool:
        """Make the last committed state the checkpoint. Returns False, with nothing changed, if the replicas differ."""
        return bool(check("checkpoint", lib.dwc_engine_checkpoint(self._c)) == lib.DWC_COMMIT_DONE)

    def rollback(self, everything: bool = False, to: Phase = Phase.INPUTS_CHOSEN) -> Rollback:
        """Bring both replicas to the last committed state. `everything`: restore all of RAM, not only dirty pages.

        `to`: the phase to continue from, which must not be later than the present one.
        """
        return Rollback(check("rollback", lib.dwc_engine_rollback(self._c, everything, to)))

    def commit(self, reason: KvmExit) -> bool:
        """Compare where single steps have brought both replicas, and commit that as the end of the element, by
        `reason`. Returns False, with nothing committed, if they differ.
        """
        return bool(check("commit", lib.dwc_engine_commit_stepped(self._c, reason)) == lib.DWC_COMMIT_DONE)

    def read_all_groups(self) -> None:
        """At an element's end: read all registers and the dirty logs of both replicas, and list the pages in the logs
        (`dirty_pages`). In place all of it has been read already.
        """
        for replica in self.replicas if self.strategy is not Strategy.IN_PLACE else ():
            check("KVM_GET_DIRTY_LOG", lib.dwc_pages_harvest(replica.pointer))
            check("read state", lib.dwc_replica_read_state(replica.pointer))
        lib.dwc_pages_compare(self._c, 0)

    # single steps

    def step_replica(self, index: int, limit: int) -> int | None:
        """Step a replica by `limit` instructions, or to the first that cannot be stepped, from the last committed state
        or from where it has been led in this element; then the first one is stepped whatever it is. Returns the number
        of instructions, or None if it has to be rolled back: it met an exit, or an instruction that behaves differently
        under single steps.
        """
        return self._stepped(lib.dwc_step_until(self._c, index, limit, 0))

    def step_element(self, limit: int, to_interruptible: bool = False) -> int | None:
        """Step both replicas to the same point, compare, and commit that as an element.

        `to_interruptible`: end as soon as an interrupt can be injected. None: not committed, and both replicas have to
        be rolled back.
        """
        return self._stepped(lib.dwc_step_element(self._c, limit, to_interruptible))

    def step_together(self, limit: int) -> int | None:
        """Both replicas ended at different instructions, and it is not known which one is lagging: step A up to `limit`
        instructions, then B up to twice as many, until all registers that come with an exit agree. In place only e2 can
        be stepped, since the VM has run it last. Returns None if they never do. Equal registers are not proof: memory
        has to be compared as at any end.
        """
        return self._stepped(lib.dwc_step_together(self._c, limit))

    def _stepped(self, result: int) -> int | None:
        return int(self._c.steps.done) if check("single step", result) == lib.DWC_STEPS_DONE else None

    # instructions that read a value of the host

    def locate_by_steps(self, kinds: int, steps: int, limit_ns: int) -> Rollback:
        """Find the first such instruction (`kinds`: InsnKind.bit of each) among the next `steps` from the last
        committed state on, by single steps of replica A. Both replicas must be there; a rollback brings them back at
        the end. It gives up after `limit_ns`. `search` has the result.
        """
        search = self._c.search
        search.kinds, search.limit, search.limit_ns = kinds, steps, limit_ns
        return Rollback(check("single step", lib.dwc_locate_by_steps(self._c)))

    def locate_by_traps(self, kinds: int, events: int, limit_ns: int) -> Rollback:
        """The same by a free run with traps at everything that looks like one. It ends at the next exit, or after
        `events` events of the progress counter (0: no such limit).
        """
        search = self._c.search
        search.kinds, search.events, search.limit_ns = kinds, events, limit_ns
        return Rollback(check("scan", lib.dwc_locate_by_traps(self._c)))

    @property
    def can_learn_site(self) -> bool:
        """Whether there is room for the site where the last search ended, or it is known."""
        return bool(lib.dwc_can_learn_site(self._c))

    def learn_site(self) -> bool:
        """Put a trap where the last search ended, in both replicas and the checkpoint, which must be the last committed
        state. Returns whether the site is new: False if the guest had written the instruction there again.
        """
        known = self.site_count
        check("learn site", lib.dwc_learn_site(self._c))
        return self.site_count > known

    def pass_host_read(self) -> None:
        """If both replicas are at the instruction that the last search found, let the next element start after it, with
        its result.
        """
        lib.dwc_pass_host_read(self._c)

    # guest memory

    def write_memory(self, gpa: int, data: bytes) -> bool:
        """Write guest RAM in all copies, between elements. Returns False, with nothing written, if not all of it is
        RAM.
        """
        return bool(lib.dwc_memory_write(self._c, gpa, data, len(data)) == 0)

    def map_memory(self, fd: int, gpa: int, length: int) -> None:
        """Before the first element, of whole pages, under a strategy with protection: let all copies of RAM show what a
        file has at that address. They share its pages until they write to them. Raises KvmError.
        """
        check("mmap", lib.dwc_memory_map(self._c, fd, gpa, length))

    @property
    def memory_at_rest(self) -> bool:
        """Whether devices can use guest memory now, once a checkpoint is taken."""
        return bool(lib.dwc_memory_at_rest(self._c))

    @property
    def has_ticked(self) -> bool:
        """Whether the frozen TSC has ticked since the checkpoint: the replicas may have read different times."""
        return bool(lib.dwc_has_ticked(self._c))

    def read_memory(self, gpa: int, length: int, on_repair: Callable[[Repair], None]) -> bytes:
        """Read guest RAM whose three copies agree, or are repaired first (`on_repair` is called). Raises Damaged."""
        out = ffi.new("uint8_t[]", length)
        self.verified(lambda: int(lib.dwc_memory_read(self._c, gpa, out, length)), on_repair)
        return bytes(ffi.buffer(out))

    def verified(self, read: Callable[[], int], on_repair: Callable[[Repair], None]) -> int:
        """Call a function of C that reads guest RAM for a device, and again after each repair. Raises Damaged."""
        while (status := check("read memory", read())) == lib.DWC_MEMORY_REPAIRED:
            on_repair(self.repair)
        if status == lib.DWC_MEMORY_LOST:
            raise Damaged(int(self._c.scrub.repair_gpa))
        return status

    def scrub_page(self, gpa: int) -> bool:
        """Scrub a page now. Returns whether a copy was wrong."""
        return bool(check("scrub", lib.dwc_scrub_page(self._c, gpa)) == lib.DWC_SCRUB_WRONG)

    # devices

    def give_uart_input(self, port: int, data: bytes, more: bool) -> int:
        """Give the guest input at a serial port; 0 is COM1. Returns how many bytes the FIFO has taken. `more`: more
        input waits besides `data`. If some is left, run() returns with ATTENTION when there is room.
        """
        taken = self.chipset.uarts[port].receive(data)
        waits = more or taken < len(data)
        self._c.requests.backlog = self._c.requests.backlog & ~(1 << port) | waits << port
        return taken

    def drain_uarts(self) -> dict[int, bytes]:
        """Take what the guest has sent since the last call, by serial port; 0 is COM1."""
        return self.chipset.sent.drain() if self._c.pc.sent.count else {}

    # visits and fault injection

    def enter_element(self, index: int) -> bool:
        """At an element's start: finish the instruction of a pending exit, so that the replica's registers can be set.
        Returns False if that instruction exits once more: then there is no such point.
        """
        return check("start the element", lib.dwc_engine_enter(self._c, index)) == 0

    def run_into_element(self, index: int, ns: int) -> bool:
        """The same, and run `ns` nanoseconds into the element. Returns False if the element ends before."""
        status = check("run to the fault's point", lib.dwc_engine_run_for(self._c, index, ns))
        return bool(status == lib.DWC_RUN_TIME_LIMIT)

    def read_again(self, index: int) -> None:
        """Read again what is compared, after registers of a replica were changed at an element's end."""
        check("read state", lib.dwc_engine_read_again(self._c, index))

    def move(self, index: int, cpu: int) -> None:
        """Bind the replica's thread to that CPU."""
        check("sched_setaffinity", lib.dwc_engine_move(self._c, index, cpu))

    def guard_page(self, gpa: int) -> bool:
        """Check a page of the checkpoint, and repair it by a replica's if it is damaged. Whether it is right then."""
        return bool(lib.dwc_guard_page(self._c, gpa) == 0)

    def checkpoint_to_upset(self) -> State:
        """Fault injection: the checkpoint's registers, to be changed. Their sum stays as it was."""
        return State.within(self._c.checkpoint.state, self._c, writable=True)

    def upset_sum(self, gpa: int, mask: int) -> None:
        """Fault injection: flip bits in the sum of a page of the checkpoint."""
        self._c.checkpoint.sums[gpa // PAGE] ^= mask


def now_ns() -> int:
    """The host's monotonic clock, as the core reads it."""
    return int(lib.dwc_now_ns())


def filter_msrs(vm_fd: int, time: bool) -> None:
    """KVM_X86_SET_MSR_FILTER: let accesses to the MSRs that the VMM answers exit; `time`: also to those of time.
    Raises KvmError.
    """
    check("KVM_X86_SET_MSR_FILTER", lib.dwc_msrs_filter(vm_fd, time))
