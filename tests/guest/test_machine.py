"""dwcvmm.Machine as a program uses it: its life, what is left open, threads, signals, two at a time."""

from __future__ import annotations

import gc
import io
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from conftest import ROOT, needs_kvm

import dwcvmm
from dwcvmm import Cause, Machine, MachineStateError, Observer, Outcome, Strategy
from dwcvmm.core.kvmstructs import Sregs
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.experiments import check
from dwcvmm.machinethread import MachineThread

pytestmark = needs_kvm
SMALL: dict[str, Any] = {"memory": "16M", "rtc": "fixed", "end_at": "io"}  # elements are counted
STRATEGIES = [
    pytest.param(
        strategy,
        marks=pytest.mark.skipif(
            strategy is Strategy.IN_PLACE and uses_shadow_paging(kvm_module()),
            reason="doctor: two_dimensional_paging: strategy in-place is refused under shadow paging",
        ),
    )
    for strategy in Strategy
]


def ports(guests: Path, **settings: Any) -> Machine:
    return Machine(guests / "ports.bin", **(SMALL | settings))


def endless(guests: Path, **settings: Any) -> Machine:
    """A guest that computes for longer than any test waits."""
    image = check.endless((guests / "spin.bin").read_bytes())
    return Machine("spin.bin", image=image, **(SMALL | settings))


def open_files() -> list[str]:
    """What the descriptors of this process lead to."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # of the directory itself
            continue
    return sorted(found)


def locks_on(file: Path) -> int:
    inode = file.stat().st_ino
    return sum(line.split()[5].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines())


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No descriptors and threads more than before; signal mask and CPUs of this thread as they were."""

    def left() -> Counter[str]:
        gc.collect()
        return Counter([*open_files(), *(t.name for t in threading.enumerate() if "pytest_timeout" not in t.name)])

    def thread() -> tuple[set[int], set[int]]:
        return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}, os.sched_getaffinity(0)

    before, own = left(), thread()
    yield
    assert left() - before == Counter()
    assert thread() == own


def test_importing_it_opens_nothing() -> None:
    code = """
import sys
import dwcvmm
assert "dwcvmm.core" not in sys.modules and "dwcvmm.machine" not in sys.modules
assert not [name for name in dwcvmm.__all__ if not hasattr(dwcvmm, name)]
assert set(dir(dwcvmm)) == set(dwcvmm.__all__)
try:
    dwcvmm.no_such_name
except AttributeError:
    import pathlib
    print([link for fd in range(3, 50) if (link := pathlib.Path(f"/proc/self/fd/{fd}")).exists()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_guest_from_start_to_end(guests: Path, strategy: Strategy) -> None:
    with ports(guests, strategy=strategy.value, keep_console=True) as machine:
        assert machine.outcome is None and machine.elements == 0
        result = machine.run(timeout=60)
        assert machine.outcome is Outcome.POWEROFF
        report = machine.report()
    assert (result.outcome, result.exit_code, result.ok) == (Outcome.POWEROFF, 0, True)
    assert result.console.startswith(b"ports: OK")
    assert 0 < result.seconds < 60
    assert (report.outcome, report.elements.committed) == ("poweroff", result.elements)
    assert machine.result() == result, "also when it is closed"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_faults_given_and_injected_are_undone(guests: Path, strategy: Strategy) -> None:
    with ports(guests, strategy=strategy, faults=["3:e2:rbx:3"], keep_console=True) as machine:
        machine.step(50)
        assert machine.result().recovered == 1
        machine.inject("50:e1:rbx:7", "120:e2:r15:60")
        with pytest.raises(dwcvmm.ConfigError, match="50 elements are committed"):
            machine.inject("49:e1:rbx:7")
        result = machine.run(timeout=60)
    assert result.ok and b"ports: OK" in result.console
    assert result.divergences == {Cause.INJECTED: 3}
    assert [(str(each.fault), each.detected_at) for each in result.injections] == [
        ("3:e2:rbx:3", 3),
        ("50:e1:rbx:7", 50),
        ("120:e2:r15:60", 120),
    ]


def test_a_fault_needs_two_runs(guests: Path) -> None:
    with ports(guests, strategy="off") as machine, pytest.raises(dwcvmm.ConfigError, match="strategy off"):
        machine.inject("3:e1:rbx:3")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_show_what_the_guest_computes(guests: Path, strategy: Strategy) -> None:
    """One turn of the loop of guest-images/ports: rbx * k + turns left."""
    with ports(guests, strategy=strategy) as machine:
        assert machine.registers()["rip"] == 0x100000, "before the first element"
        assert machine.translate(0x100000) == 0x100000
        machine.run(until_element=100)
        for element in range(100, 110):
            before = machine.registers()
            result = machine.step()
            assert (result.outcome, result.elements) == (None, element + 1)
            after = machine.registers()
            assert after["rcx"] == before["rcx"] - 1
            assert (
                after["rbx"] == (before["rbx"] * 0x5851F42D + before["rcx"]) % 2**64
                or after["rbx"] == (before["rbx"] * 0x5851F42D + after["rcx"]) % 2**64
            )
        assert {"cr3", "cs.base", "gdt.limit", "rflags"} <= set(after)
        assert machine.translate(after["rip"]) == after["rip"]
        assert machine.read_memory(0x100000, 8) == (guests / "ports.bin").read_bytes()[:8]
        assert "rip" in machine.describe()
        assert machine.run(until_element=5).elements == 110, "that is behind it"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_that_is_written_is_in_all_copies(guests: Path, strategy: Strategy) -> None:
    """And stays there when a fault has the element rolled back."""
    with ports(guests, strategy=strategy) as machine:
        machine.write_memory(0x200000, b"before")
        machine.run(until_element=20)
        for _ in range(20):
            try:
                machine.write_memory(0x300FFE, b"between")
                break
            except MachineStateError as error:
                assert "within an instruction" in str(error)
                machine.step()
        else:
            pytest.skip("this guest never stands between two instructions at the end of an element")
        with pytest.raises(dwcvmm.GuestMemoryError):
            machine.write_memory((16 << 20) - 1, b"ab")
        if strategy is not Strategy.OFF:
            machine.inject(f"{machine.elements + 1}:e1:rbx:3")
        result = machine.run(timeout=60)
        assert result.ok and result.recovered == (strategy is not Strategy.OFF)
        assert result.divergences.get(Cause.UNEXPLAINED, 0) == 0
        assert machine.read_memory(0x200000, 6) == b"before"
        assert machine.read_memory(0x300FFE, 7) == b"between"
        with pytest.raises(dwcvmm.GuestMemoryError):
            machine.read_memory(0xA0000, 1)


class Everything(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.elements: list[int] = []
        self.threads: set[str] = set()

    def note(self, what: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.seen.append(what)

    def start(self) -> None:
        self.note("start")

    def element(self, committed: int) -> None:
        self.elements.append(committed)

    def console(self, data: bytes) -> None:
        if self.seen[-1] != "console":
            self.note("console")

    def before_rollback(self) -> None:
        self.note("before_rollback")

    def divergence(self, record: dwcvmm.Divergence) -> None:
        self.note(f"divergence {record.element} {record.cause}")

    def verdict(self, element: int, wrong: list[int] | None) -> None:
        self.note(f"verdict {element} {wrong}")

    def end(self, result: dwcvmm.Result) -> None:
        self.note(f"end {result.outcome}")


@pytest.mark.usefixtures("nothing_left")
def test_an_observer_sees_all_in_order(guests: Path) -> None:
    observer = Everything()
    with ports(guests, strategy="sequential", faults=["100:e2:rbx:3"], observer=observer) as machine:
        result = machine.run(timeout=60)
    assert observer.seen == [
        "start",
        "before_rollback",
        "divergence 100 injected",
        "verdict 100 [1]",
        "console",
        "end poweroff",
    ]
    assert observer.threads == {"machine"}
    assert observer.elements == list(range(1, result.elements + 1))


def test_only_a_machine_that_is_watched_comes_back_for_each_element(
    guests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dwcvmm.element.engine import Engine

    def returns(observer: Observer) -> tuple[int, int]:
        calls = 0
        real = Engine.run

        def run(self: Engine, last_element: int = 0) -> Any:
            nonlocal calls
            calls += 1
            return real(self, last_element)

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "run", run)
            with ports(guests, strategy="off", observer=observer) as machine:
                return machine.run(timeout=60).elements, calls

    elements, watched = returns(Everything())
    others, unwatched = returns(Observer())
    assert elements == others == watched
    assert unwatched < watched


def test_what_an_observer_raises_ends_the_run(guests: Path) -> None:
    class Refuses(Observer):
        def element(self, committed: int) -> None:
            if committed == 7:
                raise KeyError("seven")

    with ports(guests, observer=Refuses()) as machine:
        with pytest.raises(KeyError, match="seven"):
            machine.run(timeout=60)
        assert (machine.outcome, machine.elements) == (Outcome.ERROR, 7)


def test_an_observer_cannot_use_the_machine_but_stop_it(guests: Path) -> None:
    refused: list[str] = []

    class Meddles(Observer):
        def element(self, committed: int) -> None:
            calls: list[Callable[[], object]] = [machine.registers, machine.close, machine.step]
            for call in calls:
                with pytest.raises(MachineStateError) as caught:
                    call()
                refused.append(str(caught.value))
            machine.stop()

    with ports(guests, observer=Meddles()) as machine:
        result = machine.run(timeout=60)
    assert (result.outcome, result.elements, len(refused)) == (Outcome.INTERRUPTED, 1, 3)


@pytest.mark.usefixtures("nothing_left")
def test_the_console_is_two_files_of_bytes(guests: Path) -> None:
    class Raw(io.RawIOBase):
        """Takes a byte at a time."""

        def __init__(self) -> None:
            self.got = b""

        def write(self, data: Any) -> int:
            self.got += bytes(data[:1])
            return 1

    printed = Raw()
    with ports(guests, console_out=printed, console_in=io.BytesIO(b"nobody reads this")) as machine:
        machine.run(timeout=60)
    assert printed.got.startswith(b"ports: OK") and printed.got.endswith(b"\n")
    with pytest.raises(dwcvmm.ConfigError, match=r"\.buffer"):
        ports(guests, console_out=io.StringIO())


@pytest.mark.usefixtures("nothing_left")
def test_input_from_a_pipe_that_stays_open(guests: Path) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, ports(guests, console_in=source) as machine:
        assert machine.run(timeout=60).ok
    os.close(write_end)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"kernel": "missing"}, dwcvmm.GuestImageError),
        ({"kernel": "/dev/null"}, dwcvmm.GuestImageError),
        ({"kernel": None}, dwcvmm.ConfigError),
        ({"initrd": "missing"}, dwcvmm.GuestImageError),  # of a flat image: refused once VMs are made
        ({"modules": ["missing"]}, dwcvmm.GuestImageError),
        ({"disks": ["good.img", "missing.img"]}, dwcvmm.ConfigError),
        ({"disks": ["good.img", "good.img"]}, dwcvmm.ConfigError),
        ({"disks": ["good.img,strange"]}, dwcvmm.ConfigError),
        ({"disks": [Path("empty.img")]}, dwcvmm.ConfigError),
        ({"disks": ["good.img,readonly"] * 40}, dwcvmm.ConfigError),
        ({"memory": "1M"}, dwcvmm.ConfigError),
        ({"memory": "lots"}, dwcvmm.ConfigError),
        ({"faults": ["nonsense"]}, dwcvmm.ConfigError),
        ({"faults": ["1:cpu99:rax:3"]}, dwcvmm.ConfigError),
        ({"checkpoint_every": 10**6}, dwcvmm.ConfigError),
        ({"strategy": "twice"}, dwcvmm.ConfigError),
        ({"flush": "all"}, dwcvmm.ConfigError),
        ({"slice": "1s"}, dwcvmm.ConfigError),
        ({"rtc": "tomorrow"}, dwcvmm.ConfigError),
        ({"clock_divisor": 0}, dwcvmm.ConfigError),
    ],
)
def test_what_cannot_be_made_leaves_nothing_open(
    guests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], error: type[Exception]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.img").write_bytes(bytes(1 << 20))
    Path("empty.img").write_bytes(b"")
    with pytest.raises(error) as caught:
        Machine(**(SMALL | {"kernel": guests / "ports.bin"} | settings))
    assert isinstance(caught.value, dwcvmm.DwcVmmError)
    assert not locks_on(Path("good.img"))


WHERE_THE_HOST_REFUSES = [
    ("dwcvmm.kvm.vm.Vm.create_vcpu", 2),
    ("dwcvmm.kvm.vm.Vm.create_vcpu", 3),
    ("dwcvmm.kvm.vm.Vm.set_memslot", 2),
    ("dwcvmm.kvm.vcpu.Vcpu.set_cpuid", 2),
    ("dwcvmm.kvm.system.System.supported_cpuid", 1),
    ("dwcvmm.kvm.system.System.msr_indices", 1),
    ("dwcvmm.pc.acpi.place_firmware", 1),
    ("dwcvmm.guest.entry.apply", 2),
    ("dwcvmm.pc.virtiodevices.Rng", 1),
    ("dwcvmm.pc.pc.power_on", 1),
    ("mmap.mmap", 2),
    ("mmap.mmap", 4),
]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", [OSError, MemoryError])
@pytest.mark.parametrize(("where", "time_called"), WHERE_THE_HOST_REFUSES)
def test_a_host_that_refuses_half_way_leaves_nothing_open(
    guests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, time_called: int, kind: type[Exception]
) -> None:
    calls = 0
    owner, _, name = where.rpartition(".")
    real = getattr(pkgutil.resolve_name(owner), name)

    def refuse(*words: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == time_called:
            raise OSError(12, "Cannot allocate memory") if kind is OSError else MemoryError()
        return real(*words, **named)

    monkeypatch.setattr(where, refuse)
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    with pytest.raises(dwcvmm.HostError):
        ports(guests, strategy="sequential", rng=True, disks=[disk])
    assert calls == time_called
    assert not locks_on(disk)


class OddFile(io.BytesIO):
    """Its descriptor cannot be asked for."""

    def __init__(self, error: Exception) -> None:
        super().__init__(b"input")
        self._error = error

    def fileno(self) -> int:
        raise self._error


@pytest.mark.usefixtures("nothing_left")
def test_a_console_that_is_closed_leaves_nothing_open(guests: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    closed = io.BytesIO()
    closed.close()
    for settings in ({"console_in": closed}, {"console_out": closed}, {"console_in": OddFile(ValueError("is closed"))}):
        with pytest.raises(dwcvmm.ConfigError, match="closed"):
            ports(guests, disks=[disk], **settings)
    with pytest.raises(KeyError):
        ports(guests, disks=[disk], console_in=OddFile(KeyError("what a caller's object raises")))
    assert not locks_on(disk)


@pytest.mark.usefixtures("nothing_left")
def test_vcpus_that_cannot_be_bound(guests: Path) -> None:
    """The engine's start fails on its second thread: the first one, with its timer, goes too."""
    with ports(guests, strategy="parallel", cpus=(0, 1000)) as machine:
        with pytest.raises(dwcvmm.KvmError, match="start engine"):
            machine.start()
        assert machine.outcome is Outcome.ERROR
        with pytest.raises(MachineStateError, match="has ended"):
            machine.run(timeout=60)


def test_a_disk_is_locked_while_the_machine_is_open(guests: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    with ports(guests, disks=[disk]):
        held = locks_on(disk)
        with pytest.raises(dwcvmm.ConfigError, match="another process uses it"):
            ports(guests, disks=[disk])
        assert locks_on(disk) == held > 0
    assert not locks_on(disk)
    ports(guests, disks=[disk]).close()


@pytest.mark.usefixtures("nothing_left")
def test_a_machine_is_used_once_and_not_when_closed(guests: Path) -> None:
    machine = ports(guests)
    assert machine.run(timeout=60).ok
    for call in (machine.run, machine.step, lambda: machine.inject("9999:e1:rax:1")):
        with pytest.raises(MachineStateError, match="has ended"):
            call()
    assert machine.registers()["rip"] and not machine.closed
    machine.close()
    machine.close()
    assert machine.closed
    for call in (machine.run, machine.registers, machine.report, machine.start, lambda: machine.pc):
        with pytest.raises(MachineStateError, match="is closed"):
            call()
    machine.stop()


ENDED, CLOSED = "has ended", "is closed"
FREE = 0x200000  # RAM that guest ports does not use


def save_somewhere(machine: Machine) -> None:
    with tempfile.TemporaryDirectory() as directory:
        assert machine.save(directory) > 1000


# every public method and property: its use, what is raised after the end, and after close
CALLS: dict[str, tuple[Callable[[Machine], object], str | None, str | None]] = {
    "start": (Machine.start, ENDED, CLOSED),
    "run": (Machine.run, ENDED, CLOSED),
    "run_async": (Machine.run_async, ENDED, CLOSED),
    "step": (Machine.step, ENDED, CLOSED),
    "write_memory": (lambda machine: machine.write_memory(FREE, b"x"), ENDED, CLOSED),
    "save": (save_somewhere, ENDED, CLOSED),
    "inject": (lambda machine: machine.inject("999999:e1:rax:1"), ENDED, CLOSED),
    "registers": (lambda machine: sorted(machine.registers())[0], None, CLOSED),
    "read_memory": (lambda machine: machine.read_memory(FREE, 2), None, CLOSED),
    "translate": (lambda machine: machine.translate(FREE), None, CLOSED),
    "describe": (lambda machine: "rip" in machine.describe().lower(), None, CLOSED),
    "report": (lambda machine: machine.report().strategy == machine.pc.config.engine.strategy, None, CLOSED),
    "status": (lambda machine: machine.status().strategy == machine.pc.config.engine.strategy, None, CLOSED),
    "observe": (lambda machine: machine.observe(Observer()), None, CLOSED),
    "pc": (lambda machine: machine.pc.config.memory_bytes, None, CLOSED),
    "stop": (lambda machine: machine.stop(Outcome.CRASH), None, None),
    "send_input": (lambda machine: machine.send_input(b"abc"), None, None),
    "input_backlog": (lambda machine: machine.input_backlog, None, None),
    "serial_backlog": (lambda machine: machine.serial_backlog(1), None, None),
    "power_button": (Machine.power_button, None, None),
    "power_button_enabled": (lambda machine: machine.power_button_enabled, None, None),
    "pause": (Machine.pause, None, None),
    "resume": (Machine.resume, None, None),
    "paused": (lambda machine: machine.paused, None, None),
    "wait_paused": (lambda machine: machine.wait_paused(0), None, None),
    "between": (lambda machine: machine.between(lambda: None), ENDED, CLOSED),
    "request_attention": (Machine.request_attention, None, None),
    "wait_when_idle": (lambda machine: machine.wait_when_idle(False), None, None),
    "elements": (lambda machine: machine.elements, None, None),
    "seconds": (lambda machine: machine.seconds < 60, None, None),
    "outcome": (lambda machine: machine.outcome, None, None),
    "remarks": (lambda machine: list(machine.remarks), None, None),
    "result": (lambda machine: machine.result().outcome, None, None),
    "closed": (lambda machine: machine.closed, None, None),
    "close": (Machine.close, None, None),
}
SHOWN = {
    "registers": "apic_base", "read_memory": b"\0\0", "translate": FREE, "describe": True, "report": True,
    "status": True,
    "pc": 16 << 20, "input_backlog": 0, "serial_backlog": 0, "seconds": True, "remarks": [],
    "power_button": False, "power_button_enabled": False, "paused": False, "wait_paused": False,
}  # fmt: skip


def end_by_itself(machine: Machine) -> None:
    assert machine.run(timeout=60).ok


def end_by_a_timeout(machine: Machine) -> None:
    assert machine.run(timeout=0).outcome is Outcome.TIMEOUT


def end_between_runs(machine: Machine) -> None:
    machine.step(100)
    machine.stop()


def end_before_the_first_run(machine: Machine) -> None:
    machine.stop()


def test_the_table_of_calls_is_whole() -> None:
    assert {*CALLS, "restore"} == {name for name in vars(Machine) if not name.startswith("_")}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("end", [end_by_itself, end_by_a_timeout, end_between_runs, end_before_the_first_run])
def test_each_call_after_the_end_and_after_close(
    guests: Path, strategy: Strategy, end: Callable[[Machine], None]
) -> None:
    """It shows what is so, or raises MachineStateError; nothing aborts the process or hangs."""
    settings = {"checkpoint_every": 16} if strategy in (Strategy.SEQUENTIAL, Strategy.PARALLEL) else {}
    with ports(guests, strategy=strategy, **settings) as machine:
        end(machine)
        outcome, elements = machine.outcome, machine.elements
        shown = SHOWN | {"elements": elements, "outcome": outcome, "result": outcome, "input_backlog": 0}
        for closed in (False, True):
            for name, (call, after_end, after_close) in CALLS.items():
                if refused := after_close if closed else after_end:
                    with pytest.raises(MachineStateError, match=refused):
                        call(machine)
                elif closed or name != "close":
                    waits = 6 if closed else 3
                    backlog = {"input_backlog": waits, "serial_backlog": waits, "closed": closed}
                    assert call(machine) == (shown | backlog).get(name), name
            machine.close()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_call_before_the_first_run(guests: Path, strategy: Strategy) -> None:
    """What runs the guest or ends it comes apart."""
    running = {"start", "run", "run_async", "step", "stop", "close", "inject", "pause", "between"}
    shown = SHOWN | {"elements": 0, "outcome": None, "result": None, "closed": False, "input_backlog": 3}
    with ports(guests, strategy=strategy) as machine:
        machine.read_memory(FREE, 2)
        for name in CALLS.keys() - running - {"write_memory", "send_input", "input_backlog", "serial_backlog"}:
            assert CALLS[name][0](machine) == shown.get(name), name
        machine.write_memory(FREE, b"x")
        machine.send_input(b"abc")
        assert (machine.read_memory(FREE, 2), machine.input_backlog) == (b"x\0", 3)
        assert machine.run(timeout=60).ok
        assert machine.read_memory(FREE, 2) == b"x\0"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_a_call_that_leaves_the_guest_undefined_ends_it(
    guests: Path, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    def refuse(_: object) -> bool:
        raise dwcvmm.KvmError("checkpoint", 5)

    with ports(guests, strategy=strategy) as machine:
        machine.step(100)
        with pytest.raises(dwcvmm.GuestMemoryError):
            machine.write_memory(16 << 20, b"x")
        with pytest.raises(dwcvmm.ConfigError):
            machine.inject("5:e1:rax:3")
        assert machine.outcome is None, "what is wrong with a request does not end the guest"
        monkeypatch.setattr("dwcvmm.core.engine.Core.checkpoint", refuse)
        monkeypatch.setattr("dwcvmm.core.engine.Core.memory_at_rest", True)
        with pytest.raises(dwcvmm.KvmError):
            machine.write_memory(FREE, b"x")
        assert machine.outcome is Outcome.ERROR
        with pytest.raises(MachineStateError, match="has ended"):
            machine.run(timeout=60)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("policy", ["restart", "stop"])
def test_a_difference_that_is_found_when_memory_is_to_be_written(guests: Path, policy: str) -> None:
    """The text says whether to try again or not."""
    expected = {"restart": "was undone", "stop": r"has ended \(divergence_stop\)"}
    with endless(guests, strategy="sequential", policy=policy, checkpoint_every=16) as machine:
        core, vcpu = machine.pc.core, machine.pc.replicas.vcpus[1]
        while not (core.log_count and core.memory_at_rest):
            machine.step()
        registers = vcpu.get(Sregs)
        registers.set_number("cr2", registers.number("cr2") ^ 8)
        vcpu.set(registers)
        machine.pc.core.replicas[1].registers_were_set()
        with pytest.raises(MachineStateError, match=expected[policy]):
            machine.write_memory(FREE, b"x")
        assert machine.read_memory(FREE, 1) == b"\0"
        if policy == "restart":
            machine.write_memory(FREE, b"x")
            assert machine.read_memory(FREE, 1) == b"x"
            assert machine.step().outcome is None


@pytest.mark.usefixtures("nothing_left")
def test_a_stop_just_after_the_last_element_that_was_wanted(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result says so, as that of a stop before: or the caller would run on a guest that has ended."""
    observer = Everything()
    with ports(guests, observer=observer) as machine:

        def late(futures: list[Future[Any]], _: float | None) -> None:
            wait(futures)
            machine.stop(Outcome.TIMEOUT)

        monkeypatch.setattr("dwcvmm.machine.wait", late)
        result = machine.run(timeout=60, until_element=5)
    assert (result.outcome, result.elements, observer.seen[-1]) == (Outcome.TIMEOUT, 5, "end timeout")


@pytest.mark.usefixtures("nothing_left")
def test_one_call_at_a_time(guests: Path) -> None:
    with endless(guests) as machine:
        running = machine.run_async()
        for call in (machine.registers, machine.run, machine.step, lambda: machine.observe(Observer())):
            with pytest.raises(MachineStateError, match="in use"):
                call()
        while not machine.elements:
            time.sleep(0.01)
        assert machine.result().outcome is None
        machine.stop()
        assert running.result(timeout=60).outcome is Outcome.INTERRUPTED


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("started", [False, True])
def test_no_job_comes_after_the_closing_one(started: bool) -> None:
    """It would never run, and its caller would wait for ever."""
    thread = MachineThread()
    done: list[str] = []
    if started:
        thread.submit(lambda: done.append("job"))
    thread.finish(lambda: done.append("last"))
    with pytest.raises(MachineStateError, match="is closed"):
        thread.submit(lambda: done.append("late"))
    assert done == (["job", "last"] if started else ["last"])


@pytest.mark.usefixtures("nothing_left")
def test_calls_that_race_with_close(guests: Path) -> None:
    """Each comes to an end, one way or the other."""
    refused = shown = 0
    for _ in range(20):
        machine = ports(guests, strategy="off")
        machine.start()
        closing = threading.Thread(target=machine.close)
        closing.start()
        try:
            while True:
                assert machine.registers()["rip"]
                shown += 1
        except MachineStateError as error:
            assert "closed" in str(error)
            refused += 1
        closing.join(60)
        assert machine.closed and not closing.is_alive()
    assert refused == 20


@pytest.mark.usefixtures("nothing_left")
def test_a_second_close_waits_for_the_first(guests: Path) -> None:
    held, free = threading.Event(), threading.Event()

    class Slow(Observer):
        def element(self, committed: int) -> None:
            held.set()
            free.wait(60)

    machine = ports(guests, strategy="off", observer=Slow())
    machine.run_async()
    assert held.wait(60)
    closers = [threading.Thread(target=machine.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    closers[1].join(0.3)
    assert [closer.is_alive() for closer in closers] == [True, True]
    free.set()
    for closer in closers:
        closer.join(60)
    assert machine.closed and not any(closer.is_alive() for closer in closers)


def test_a_result_while_a_cause_is_added(guests: Path) -> None:
    """As the machine's thread does it, here far more often."""
    over, interval = threading.Event(), sys.getswitchinterval()

    def add(counts: Counter[str]) -> None:
        while not over.is_set():
            for cause in Cause:
                counts[cause] = 1
            counts.clear()

    with ports(guests, strategy="sequential") as machine:
        thread = threading.Thread(target=add, args=[machine.pc.engine.counts.divergences])
        thread.start()
        sys.setswitchinterval(1e-6)
        try:
            seen = {len(machine.result().divergences) for _ in range(30_000)}
        finally:
            sys.setswitchinterval(interval)
            over.set()
            thread.join()
    assert len(seen) > 1


@pytest.mark.usefixtures("nothing_left")
def test_a_guest_that_runs_is_closed(guests: Path) -> None:
    with endless(guests) as machine:
        running = machine.run_async()
    assert running.result(timeout=0).outcome is Outcome.INTERRUPTED


@pytest.mark.parametrize("moment", range(12))
def test_the_first_end_counts(guests: Path, moment: int) -> None:
    """Another end comes between two instructions of Python, as from another thread."""
    with ports(guests, strategy="off") as machine:
        seen: list[Outcome | None] = []
        left = moment

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            frame.f_trace_opcodes = True
            if event == "opcode" and (left := left - 1) < 0 and not seen:
                seen.append(Outcome.POWEROFF)
                machine.stop(Outcome.POWEROFF)
                seen[0] = machine.outcome
            return trace

        sys.settrace(lambda frame, event, arg: trace(frame, event, arg) if frame.f_code.co_name == "_end" else None)
        try:
            machine.stop(Outcome.TIMEOUT)
        finally:
            sys.settrace(None)
        assert machine.outcome is (seen[0] if seen else Outcome.TIMEOUT)


@pytest.mark.usefixtures("nothing_left")
def test_a_timeout_ends_the_guest(guests: Path) -> None:
    with endless(guests) as machine:
        started = time.monotonic()
        assert machine.run(timeout="300ms").outcome is Outcome.TIMEOUT
        assert 0.3 <= time.monotonic() - started < 10


@pytest.mark.usefixtures("nothing_left")
def test_ctrl_c_ends_the_run_and_the_machine_can_be_looked_at(guests: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
    with endless(guests) as machine:
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            machine.run(timeout=60)
        assert time.monotonic() - started < 30
        assert machine.outcome is Outcome.INTERRUPTED
        assert machine.registers()["rip"]
    timer.join()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_real_sigint_reaches_the_thread_that_waits(guests: Path) -> None:
    code = f"""
import dwcvmm, os, signal, threading, time
from dwcvmm.experiments.check import endless
image = endless(open({str(guests / "spin.bin")!r}, "rb").read())
with dwcvmm.Machine("spin.bin", image=image, memory="16M") as machine:
    def interrupt():
        while not machine.elements:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        machine.run(timeout=60)
    except KeyboardInterrupt:
        print(machine.outcome, machine.elements > 0)
print(machine.closed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted True\nTrue\n", "")


@pytest.mark.usefixtures("nothing_left")
def test_one_machine_after_the_other(guests: Path) -> None:
    elements = set()
    for _ in range(5):
        with ports(guests, strategy="sequential") as machine:
            elements.add(machine.run(timeout=60).elements)
    assert len(elements) == 1


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("strategies", "names"),
    [(("sequential", "off"), ("ports", "waits")), (("parallel",) * 2, ("ports",))],
)
def test_two_machines_at_the_same_time(guests: Path, strategies: tuple[str, str], names: tuple[str, ...]) -> None:
    """Each with slices, kicks and faults of its own, driven by two threads."""
    results: dict[int, list[dwcvmm.Result]] = {0: [], 1: []}

    def work(index: int) -> None:
        faults = [f"{60 + index}:e1:rbx:3", f"{90 + index}:e2:rbx:5"] if strategies[index] != "off" else []
        for guest in names:
            with Machine(
                guests / f"{guest}.bin",
                strategy=strategies[index],
                faults=faults if guest == "ports" else [],
                keep_console=True,
                **SMALL,
            ) as machine:
                results[index].append(machine.run(timeout=60))

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, strategy in enumerate(strategies):
        assert [result.ok for result in results[index]] == [True] * len(names)
        assert all(b": OK" in result.console for result in results[index])
        assert results[index][0].divergences.get(Cause.INJECTED, 0) == (0 if strategy == "off" else 2)
        assert all(result.divergences.get(Cause.UNEXPLAINED, 0) == 0 for result in results[index])


@pytest.mark.usefixtures("nothing_left")
def test_a_forgotten_machine_is_closed_with_a_warning(guests: Path) -> None:
    machine = ports(guests)
    machine.step(3)
    gone = weakref.ref(machine)
    with pytest.warns(ResourceWarning, match="not closed"):
        del machine
        gc.collect()
    assert gone() is None


@pytest.mark.parametrize("how", ["machine.step(3)", "machine.run_async()"])
def test_an_interpreter_that_ends_closes_it(guests: Path, how: str) -> None:
    code = f"import dwcvmm; machine = dwcvmm.Machine({str(guests / 'rdtsc.bin')!r}, memory='16M'); {how}; print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_memory_is_given_back(guests: Path) -> None:
    def resident_mib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) >> 8

    def used_memory(guests: Path) -> Machine:
        machine = Machine(kernel=guests / "memory.bin", memory="64M", strategy="sequential")
        assert machine.run().ok
        return machine

    gc.disable()
    try:
        used_memory(guests).close()
        before = resident_mib()
        machines = [used_memory(guests) for _ in range(2)]
        held = resident_mib()
        for machine in machines:
            machine.close()
        after = resident_mib()
    finally:
        gc.enable()
    assert held - before > 300, "three copies each"
    assert after - before < 64
