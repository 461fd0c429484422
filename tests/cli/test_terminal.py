"""The user's terminal: raw while a guest has it, and as before whatever signal ends or stops the run."""

from __future__ import annotations

import os
import signal
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.console.session import STOP_SIGNALS
from dwcvmm.errors import ExitCode
from dwcvmm.results.reportfile import load

Start = Callable[..., pexpect.spawn]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A guest that prints "A" and waits for ever, on a terminal of its own."""
    image = tmp_path / "wait.bin"
    image.write_bytes(b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe")
    children: list[pexpect.spawn] = []

    def spawn(*options: str) -> pexpect.spawn:
        run = ["run", "--kernel", str(image), "--memory", "16M", "--strategy", "off", "--report", str(tmp_path / "r")]
        child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *run, *options], cwd=str(ROOT), timeout=30, encoding="utf-8")
        children.append(child)
        child.before_modes = termios.tcgetattr(child.child_fd)
        child.expect("Ctrl-a h shows the keys")
        child.expect("A\r\n")
        return child

    yield spawn
    for child in children:
        child.close(force=True)


def is_raw(child: pexpect.spawn) -> bool:
    return not termios.tcgetattr(child.child_fd)[3] & termios.ICANON


def wait_until(condition: Callable[[], bool]) -> None:
    waited = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < waited
        time.sleep(0.02)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@needs_kvm
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_a_signal_leaves_the_terminal_as_it_was(start: Start, tmp_path: Path, number: int) -> None:
    child = start()
    assert is_raw(child)
    os.kill(child.pid, number)
    child.expect("interrupted after")
    child.expect(pexpect.EOF)
    assert termios.tcgetattr(child.child_fd) == child.before_modes
    child.close()
    assert child.exitstatus == ExitCode.INTERRUPTED
    assert load(tmp_path / "r").outcome == "interrupted"


def test_all_signals_that_end_a_process_are_among_them() -> None:
    harmless = {"CHLD", "CONT", "URG", "WINCH", "STOP", "TSTP", "TTIN", "TTOU", "PIPE", "XFSZ", "CLD"}
    of_a_fault = {"ILL", "TRAP", "ABRT", "BUS", "FPE", "SEGV", "SYS", "IOT"}
    ends = {each for each in signal.Signals if each.name[3:] not in harmless | of_a_fault | {"KILL"}}
    assert {each for each in ends if each < signal.SIGRTMIN} == set(STOP_SIGNALS)


@needs_kvm
def test_a_run_that_is_stopped_gives_the_terminal_back_and_takes_it_again(start: Start) -> None:
    child = start()
    os.kill(child.pid, signal.SIGTSTP)
    wait_until(lambda: state_of(child.pid) == "T")
    assert termios.tcgetattr(child.child_fd) == child.before_modes
    os.kill(child.pid, signal.SIGCONT)
    wait_until(lambda: is_raw(child))
    child.send("\x01x")
    child.expect("interrupted after")
    child.expect(pexpect.EOF)
    assert termios.tcgetattr(child.child_fd) == child.before_modes


@needs_kvm
def test_a_timeout_leaves_the_terminal_as_it_was(start: Start) -> None:
    child = start("--timeout", "3")
    child.expect("timeout after")
    child.expect(pexpect.EOF)
    assert termios.tcgetattr(child.child_fd) == child.before_modes
    child.close()
    assert child.exitstatus == ExitCode.TIMEOUT


@needs_kvm
@pytest.mark.parametrize("how", ["a signal", "the time", "exit()"])
def test_the_shell_does_not_outlast_the_run(start: Start, tmp_path: Path, how: str) -> None:
    child = start(*(("--timeout", "6") if how == "the time" else ()))
    child.send("\x01c")
    child.expect(">>> ")
    child.send("core.stats.committed >= 0\n")
    child.expect("True")
    child.send("\x03")  # clears the line that is typed, and no more
    child.expect("KeyboardInterrupt")
    if how == "a signal":
        os.kill(child.pid, signal.SIGTERM)
    elif how == "exit()":
        child.send("exit()\n")
        wait_until(lambda: is_raw(child))
        child.send("\x01x")
    child.expect("timeout after" if how == "the time" else "interrupted after")
    child.expect(pexpect.EOF)
    assert termios.tcgetattr(child.child_fd) == child.before_modes
    assert load(tmp_path / "r").outcome == ("timeout" if how == "the time" else "interrupted")
    child.close()
    assert child.exitstatus == (ExitCode.TIMEOUT if how == "the time" else ExitCode.INTERRUPTED)


@needs_kvm
def test_a_run_that_nohup_started_survives_a_hangup(tmp_path: Path) -> None:
    image = tmp_path / "spin.bin"
    image.write_bytes(b"\xeb\xfe")
    run = ["nohup", *COMMAND, "run", "-q", "--kernel", str(image), "--memory", "16M", "--timeout", "3"]
    # where nohup leaves its file; what is not installed but found by the directory is named
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = pexpect.spawn(run[0], run[1:], cwd=str(tmp_path), env=environment, timeout=30)
    time.sleep(1.5)
    os.kill(child.pid, signal.SIGHUP)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == ExitCode.TIMEOUT


@needs_kvm
def test_a_second_ctrl_c_does_not_cut_the_report(tmp_path: Path) -> None:
    image, report = tmp_path / "spin.bin", tmp_path / "r"
    image.write_bytes(b"\xeb\xfe")
    program = (
        "import os, signal\n"
        "from dwcvmm.results.outputfile import OutputFile\n"
        "real = OutputFile.write\n"
        "def write(self, content):\n    os.kill(os.getpid(), signal.SIGINT)\n    real(self, content)\n"
        "OutputFile.write = write\n"
        "from dwcvmm.cli.main import main; main()\n"
    )
    run = ["run", "-q", "--kernel", str(image), "--memory", "16M", "--report", str(report)]
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:-1], program, *run, "--no-sandbox"], cwd=str(ROOT), timeout=30)
    child.expect("Ctrl-a h shows the keys")
    os.kill(child.pid, signal.SIGINT)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == ExitCode.INTERRUPTED
    assert load(report).outcome == "interrupted"
