"""`dwcvmm run --timeout 2` with anything in the place of a file: it ends in time, with a documented exit code and a
sentence. Cases that wait run side by side.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.errors import ExitCode
from dwcvmm.results.reportfile import load

OK, FAILED, CONFIG, UNFIT, TIMEOUT, INTERRUPTED = (
    *(ExitCode.OK, ExitCode.GUEST_FAILED, ExitCode.CONFIG, ExitCode.HOST_UNFIT, ExitCode.TIMEOUT, ExitCode.INTERRUPTED),
)
TIMEOUT_S = 2
LONG_S = 30  # of what ends by itself
SPARE_S = 15  # for a machine that is busy: what hangs takes for ever
AT_A_TIME = 3

pytestmark = pytest.mark.xdist_group("timeout matrix")  # for the fixture that runs the cases


@dataclass
class Place:
    """A directory with one of each kind of file, and guests."""

    path: Path
    fifos: int = 0
    held: list[int] = field(default_factory=list)  # descriptors

    def __getitem__(self, name: str) -> str:
        """A file for the place of {name}: one of `path`, or a pipe of its own with nobody at the other end."""
        if name != "fifo":
            return str(self.path / f"{name}.bin")
        self.fifos += 1
        os.mkfifo(fifo := self.path / f"fifo{self.fifos}.bin")
        return str(fifo)

    def stuck_pipe(self) -> int:
        """The end to write to, of a pipe that somebody holds and nobody reads."""
        read_end, write_end = os.pipe()
        self.held += [read_end, write_end]
        return write_end

    def slow_pipe(self) -> int:
        """The end to write to, of a non-blocking pipe whose reader takes some now and then."""
        write_end = self.stuck_pipe()
        os.set_blocking(write_end, False)
        read_end = os.dup(self.held[-2])

        def read() -> None:
            while os.read(read_end, 100):
                time.sleep(0.05)

        ThreadPoolExecutor(1).submit(read)
        return write_end

    def silent_pipe(self) -> int:
        """The end to read from, of a pipe that nobody writes to."""
        self.stuck_pipe()
        return self.held[-2]


@pytest.fixture(scope="module")
def place(guests: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    path = tmp_path_factory.mktemp("matrix")
    made = Place(path)
    (path / "guest.bin").write_bytes(b"\xb0\x41\x66\xba\xf8\x03\xee\x30\xc0\xe6\xf4")  # "A", and the debug exit
    (path / "spin.bin").write_bytes(b"\xeb\xfe")
    (path / "halt.bin").write_bytes(b"\xfa\xf4")
    (path / "echo.bin").write_bytes(  # what comes in goes out, for ever
        b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03\xec\xee\xeb\xf0"
    )
    (path / "chatter.bin").write_bytes(b"\xb0\x0a\x66\xba\xf8\x03\xee\xeb\xfd")  # newlines for ever
    (path / "chatter2.bin").write_bytes(b"\xb0\x0a\x66\xba\xf8\x02\xee\xeb\xfd")  # the same at COM2
    shutil.copy(guests / "multiboot.bin", path)
    (path / "image.bin").write_bytes(bytes(1 << 16))
    os.mkfifo(path / "unread.bin")
    made.held.append(os.open(path / "unread.bin", os.O_RDWR))  # it is open, and nobody reads it
    while True:  # and full
        try:
            os.set_blocking(made.held[-1], False)
            os.write(made.held[-1], bytes(4096))
        except BlockingIOError:
            break
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "socket.bin"))
        yield made
    for fd in made.held:
        os.close(fd)


@dataclass(frozen=True)
class Case:
    """Words of the command, with names of Place; what stdin and stdout are."""

    words: str
    codes: tuple[ExitCode, ...]
    stdin: Callable[[Place], int] | None = None
    stdout: Callable[[Place], int] | None = None
    closed: tuple[int, ...] = ()
    says: str = ""
    timeout_s: int = TIMEOUT_S


CASES = [
    # kernels
    Case("--kernel {fifo}", (TIMEOUT,), says="before the guest started"),
    Case("--kernel /dev/zero", (CONFIG,), says="/dev/zero: a character device"),
    Case("--kernel /dev/full", (CONFIG,), says="a character device"),
    Case("--kernel .", (CONFIG,), says="Is a directory"),
    Case("--kernel none", (CONFIG,), says="No such file"),
    Case("--kernel {socket}", (CONFIG,), says="a socket"),
    Case("--kernel /dev/stdin", (TIMEOUT,), stdin=Place.silent_pipe, says="before the guest started"),
    # initrds, modules
    Case("--kernel {multiboot} --initrd {fifo}", (TIMEOUT,)),
    Case("--kernel {multiboot} --initrd /dev/zero", (CONFIG,), says="a character device"),
    Case("--kernel {multiboot} --initrd .", (CONFIG,), says="Is a directory"),
    # disks
    Case("--kernel {guest} --disk {fifo}", (CONFIG, TIMEOUT)),
    Case("--kernel {guest} --disk {fifo},snapshot", (CONFIG, TIMEOUT)),
    Case("--kernel {guest} --disk /dev/zero", (CONFIG,), says="/dev/zero"),
    Case("--kernel {guest} --disk .", (CONFIG,)),
    Case("--kernel {guest} --disk {socket}", (CONFIG,)),
    Case("--kernel {spin} --disk {image},snapshot", (TIMEOUT,)),
    # results
    Case("--kernel {guest} --report {fifo}", (TIMEOUT,), says="nobody reads"),
    Case("--kernel {guest} --report {unread}", (TIMEOUT,), says="may not be complete"),
    Case("--kernel {guest} --report /dev/full", (UNFIT,), says="cannot write the report to /dev/full"),
    Case("--kernel {guest} --report .", (CONFIG,), says="cannot write the report"),
    Case("--kernel {guest} --report {socket}", (CONFIG,), says="cannot write the report"),
    Case("--kernel {guest} --events {fifo}", (TIMEOUT,), says="nobody reads"),
    Case("--kernel {guest} --events {unread}", (TIMEOUT,)),
    Case("--kernel {guest} --events /dev/full", (UNFIT,), says="cannot write events to /dev/full"),
    Case("--kernel {guest} --keep-divergence {fifo}", (TIMEOUT,), says="nobody reads"),
    Case("--kernel {guest} --keep-divergence {unread} --fault 0:e2:r15:1", (TIMEOUT,)),
    Case("--kernel {guest} --baseline {fifo}", (TIMEOUT,)),
    Case("--kernel {guest} --baseline /dev/zero", (CONFIG,), says="a character device"),
    # consoles
    Case("--kernel {guest} --console {fifo}", (TIMEOUT,), says="nobody reads"),
    Case("--kernel {chatter} --console {unread}", (TIMEOUT,)),
    Case("--kernel {chatter} --console {unread} --strategy off", (TIMEOUT,)),
    Case("--kernel {guest} --console /dev/full", (UNFIT,), says="cannot write the console to /dev/full"),
    Case("--kernel {guest} --console .", (CONFIG,), says="Is a directory"),
    Case("--kernel {guest} --serial {fifo}", (TIMEOUT,), says="nobody reads"),
    Case("--kernel {chatter2} --serial {unread}", (TIMEOUT,)),
    Case("--kernel {chatter2} --serial /dev/full", (UNFIT,), says="cannot write COM2 to /dev/full"),
    Case("--kernel {chatter}", (TIMEOUT,), stdout=Place.stuck_pipe),
    Case("--kernel {chatter}", (TIMEOUT,), stdout=Place.slow_pipe),
    Case("--kernel {guest}", (OK,), stdout=Place.slow_pipe, timeout_s=LONG_S),
    Case("--kernel {guest}", (UNFIT,), closed=(1,), says="stdout is closed"),
    Case("--kernel {guest} --console none", (OK,), closed=(1,), timeout_s=LONG_S),
    Case("--kernel {guest}", (OK,), closed=(0, 2), timeout_s=LONG_S),
    # input
    Case("--kernel {echo}", (TIMEOUT,), stdin=Place.silent_pipe),
    Case("--kernel {echo} --strategy off", (TIMEOUT,), stdin=lambda place: os.open("/dev/zero", os.O_RDONLY)),
    # guests
    Case("--kernel {spin} --strategy parallel", (TIMEOUT,)),
    Case("--kernel {halt}", (FAILED,), says="HALTED", timeout_s=LONG_S),
]


def run_case(case: Case, place: Place) -> tuple[subprocess.Popen[bytes], bytes, float]:
    words = case.words.format_map(place).split(" ")
    command = [*COMMAND, "run", "--memory", "16M", "--strategy", "sequential", "--timeout", str(case.timeout_s), *words]
    standard: dict[str, Any] = {
        "stdin": case.stdin(place) if case.stdin else subprocess.DEVNULL,
        "stdout": case.stdout(place) if case.stdout else subprocess.DEVNULL,
    }

    def close() -> None:
        for fd in case.closed:
            os.close(fd)

    started = time.monotonic()
    # what it prints goes into a file: a pipe would have to be read
    with (place.path / f"err-{id(case)}").open("w+b") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stderr=errors, preexec_fn=close, **standard)
        try:
            process.wait(case.timeout_s + SPARE_S)
        finally:
            process.kill()
            process.wait()
        took = time.monotonic() - started
        errors.seek(0)
        return process, errors.read(), took


@pytest.fixture(scope="module")
def ended(place: Place) -> Iterator[dict[Case, tuple[subprocess.Popen[bytes], bytes, float]]]:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield dict(zip(CASES, pool.map(lambda case: run_case(case, place), CASES), strict=True))


@needs_kvm
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words.replace("--", "").replace(" ", "-"))
def test_it_ends_in_time(case: Case, ended: dict[Case, tuple[subprocess.Popen[bytes], bytes, float]]) -> None:
    process, printed, took = ended[case]
    errors = printed.decode()
    assert process.returncode in case.codes, errors
    assert "Traceback" not in errors and "bug of dwcvmm" not in errors, errors
    assert case.says in errors, errors
    assert took < case.timeout_s + SPARE_S


@needs_kvm
def test_a_disk_that_does_not_answer_is_left_behind(place: Place) -> None:
    """A transfer that does not come back holds the machine's thread: the report is written all the same."""
    report = place.path / "held.json"
    program = (
        "import sys, time\n"
        "from dwcvmm.pc.serialports import SerialPorts\n"
        "SerialPorts.drain = lambda self: time.sleep(1000)\n"
        "from dwcvmm.cli.main import main; main()\n"
    )
    command = [*COMMAND[:-1], program, "run", "--kernel", place["guest"], "--memory", "16M"]
    command += ["--timeout", str(TIMEOUT_S), "--report", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == TIMEOUT, done.stderr
    assert "left where it stood" in done.stderr
    assert load(report).outcome == "timeout"


@needs_kvm
@pytest.mark.parametrize(
    "words",
    [
        "--kernel {fifo}",
        "--kernel {guest} --report {fifo}",
        "--kernel {guest} --report {unread}",
        "--kernel {guest} --events {unread}",
        "--kernel {chatter} --console {unread}",
        "--kernel {chatter}",
    ],
)
def test_ctrl_c_ends_what_waits(words: str, place: Place) -> None:
    """Without a time limit. Here stdout is a pipe that nobody reads."""
    command = [*COMMAND, "run", "--memory", "16M", *words.format_map(place).split(" ")]
    # whatever started the tests may ignore SIGINT, which is inherited (a shell's background job)
    default: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    out = place.stuck_pipe()
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, **default
    )
    try:
        time.sleep(2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SPARE_S)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED
    assert b"Traceback" not in errors


@needs_kvm
def test_a_process_that_was_stopped_beyond_its_limit_writes_its_report(guests: Path, tmp_path: Path) -> None:
    """By SIGSTOP, as a debugger or a frozen container does it: then nobody had his time, and all get a second."""
    report = tmp_path / "report.json"
    command = [*COMMAND, "run", "--kernel", str(guests / "waits.bin"), "--memory", "16M", "--timeout", "3"]
    with subprocess.Popen(
        [*command, "--report", str(report)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        time.sleep(2)
        process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        process.send_signal(signal.SIGCONT)
        assert process.wait(20) == ExitCode.TIMEOUT
    assert load(report).outcome == "timeout"
