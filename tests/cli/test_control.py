"""A machine that runs in the sandbox, and its control socket: qmp-shell, dwcvmm ctl, what is no QMP, how it ends."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.control.client import Client
from dwcvmm.errors import ExitCode
from dwcvmm.results.reportfile import load

pytestmark = needs_kvm
STRATEGIES = ("off", "sequential", "parallel")
SPIN = b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe"  # prints "A\n", then jmp $
HALT = b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xfb\xf4\xeb\xfc"  # the same, then sti, hlt for ever
LINES = 10_000  # of noise
REACTS_S = 5.0  # far more than it takes, for a machine with other work


class Run:
    """A machine under control. `path`: of its socket."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.process, self.path, self.report = process, directory / "control", directory / "report.json"

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return ctl(self.path, *arguments)

    def ends(self) -> tuple[int, str]:
        """Exit code, and the report's outcome. The socket is gone a moment later."""
        self.process.communicate(timeout=30)
        end = time.monotonic() + REACTS_S
        while self.path.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        return self.process.returncode, load(self.report).outcome


def ctl(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "ctl", str(path), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@contextmanager
def running(kernel: Path, directory: Path, *options: str, says: bytes = b"A\n") -> Iterator[Run]:
    run = ["run", "--kernel", str(kernel), "--memory", "16M", *options]
    run += ["--control", str(directory / "control"), "--report", str(directory / "report.json")]
    process = subprocess.Popen(
        [*COMMAND, *run],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # no terminal
    )
    try:
        assert process.stdout and process.stdout.readline() == says, process.stderr and process.stderr.read()
        yield Run(process, directory)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def spin(tmp_path: Path) -> Path:
    (image := tmp_path / "spin.bin").write_bytes(SPIN)
    return image


@pytest.fixture
def halt(tmp_path: Path) -> Path:
    (image := tmp_path / "halt.bin").write_bytes(HALT)
    return image


def figures(run: Run) -> dict[str, Any]:
    with Client(run.path) as client:
        answer = client.execute("x-dwc-status")
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_qmp_shell_drives_it(guests: Path, tmp_path: Path, strategy: str) -> None:
    """As it is on PyPI (qemu.qmp)."""
    shell = Path(sys.executable).with_name("qmp-shell")
    if not shell.exists():
        pytest.skip("there is no qmp-shell: install qemu.qmp")
    lines = ["query-version", "query-status", "stop", "query-status", "cont", "query-status", "x-dwc-status", ""]
    lines += ["x-dwc-inject fault=900:e1:rbx:3" if strategy != "off" else "x-dwc-report", "no-such-command"]
    lines += ["system_powerdown", ""]
    with running(guests / "button.bin", tmp_path, "--strategy", strategy, says=b"press\n") as run:
        done = subprocess.run(
            [shell, str(run.path)],
            input="\n".join(lines) + "\n",
            env=os.environ | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = done.stdout
        assert run.process.stdout and run.process.stdout.readline() == b"press\n", "the button was pressed"
        assert (run.ctl("powerdown").returncode, *run.ends()) == (ExitCode.OK, ExitCode.OK, "poweroff")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Connected to QEMU 0.1" in said
    states = [word for word in ("running", "paused") for _ in range(said.count(f'"status": "{word}"'))]
    assert states == ["running"] * 3 + ["paused"]
    for word in ("STOP", "RESUME", "POWERDOWN"):
        assert said.count(f"'event': '{word}'") == 1
    assert said.count('"error": {') == 1 and "CommandNotFound" in said
    assert said.count('"return"') == 9


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("image", ["spin", "halt"])
def test_a_command_does_not_wait_for_the_guest(
    request: pytest.FixtureRequest, tmp_path: Path, image: str, strategy: str
) -> None:
    """In an element that does not end by itself, and in HLT, where time is real time although there is no input."""
    with running(request.getfixturevalue(image), tmp_path, "--strategy", strategy) as run, Client(run.path) as client:
        took = []
        for _ in range(7):
            time.sleep(0.15)
            before = client.execute("x-dwc-status")
            asked = time.monotonic()
            assert client.execute("stop") == {}
            took.append(time.monotonic() - asked)
            stood = client.execute("x-dwc-status")
            assert stood["status"] == "paused"
            time.sleep(0.1)
            later = client.execute("x-dwc-status")
            for name in ("elements", "guest_seconds"):
                assert later[name] == stood[name] >= before[name]
            client.execute("cont")
        assert min(took) < 0.1, took
        assert max(took) < REACTS_S
        client.execute("x-dwc-status")
        assert client.execute("quit") == {}
        assert run.ends() == (ExitCode.INTERRUPTED, "interrupted")
        assert [event["event"] for event in client.events] == ["STOP", "RESUME"] * 7
        while client.wait_for_events(REACTS_S):
            pass
        assert client.events[-1]["data"] == {"guest": False, "reason": "host-qmp-quit"}


def test_a_halted_guest_is_idle_in_real_time(halt: Path, tmp_path: Path) -> None:
    with running(halt, tmp_path, "--strategy", "sequential") as run:
        first, began = figures(run), time.monotonic()
        time.sleep(1)
        passed = figures(run)["guest_seconds"] - first["guest_seconds"]
        assert 0.5 < passed < time.monotonic() - began + 0.1
        assert run.ctl("quit").returncode == ExitCode.OK


@pytest.mark.parametrize("sandbox", [True, False])
def test_reset_ends_it_as_the_guests_own_does(spin: Path, tmp_path: Path, sandbox: bool) -> None:
    options = () if sandbox else ("--no-sandbox",)
    with running(spin, tmp_path, "--strategy", "off", *options) as run, Client(run.path) as client:
        assert client.execute("system_reset") == {}
        assert run.ends() == (ExitCode.OK, "reboot")
        while client.wait_for_events(REACTS_S):
            pass
        assert [event["event"] for event in client.events] == ["RESET", "SHUTDOWN"]
        assert {event["data"]["reason"] for event in client.events} == {"host-qmp-system-reset"}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_whatever_is_connected(spin: Path, tmp_path: Path, number: int, paused: bool) -> None:
    with running(spin, tmp_path, "--strategy", "sequential") as run, Client(run.path) as client:
        if paused:
            client.execute("stop")
        run.process.send_signal(number)
        assert run.ends() == (ExitCode.INTERRUPTED, "interrupted")


def test_a_paused_guest_cannot_answer_sigterm(guests: Path, tmp_path: Path) -> None:
    """So the first one ends it, although its power button is enabled."""
    with running(guests / "button.bin", tmp_path, says=b"press\n") as run:
        assert run.ctl("stop").returncode == ExitCode.OK
        run.process.send_signal(signal.SIGTERM)
        assert run.ends() == (ExitCode.INTERRUPTED, "interrupted")


def test_the_time_limit_ends_a_paused_guest(spin: Path, tmp_path: Path) -> None:
    with running(spin, tmp_path, "--strategy", "off", "--timeout", "3") as run:
        run.ctl("stop")
        assert run.ends() == (ExitCode.TIMEOUT, "timeout")


def test_a_fault_is_injected_and_undone(guests: Path, tmp_path: Path) -> None:
    """In the element in which a guest that halts is told of its power button."""
    options = ("--strategy", "sequential")
    with running(guests / "button.bin", tmp_path, *options, says=b"press\n") as run, Client(run.path) as client:
        while client.execute("x-dwc-status")["by_end"].get("hlt") != 1:
            time.sleep(0.01)
        client.execute("stop")
        client.execute("x-dwc-inject", fault=f"{client.execute('x-dwc-status')['elements']}:e2:rbx:3")
        client.execute("system_powerdown")
        client.execute("cont")
        assert run.process.stdout and run.process.stdout.readline() == b"press\n"
        assert client.execute("x-dwc-status")["divergences_by_cause"] == {"injected": 1}
        report = client.execute("x-dwc-report")
        assert (report["divergences"]["total"], report["faults"][0]["became"]) == (1, "injected")
        client.execute("system_powerdown")
        assert run.ends() == (ExitCode.OK, "poweroff")
    assert load(run.report).divergences.unexplained == 0


def noise(random_: random.Random) -> bytes:
    """A line that may be QMP, or was some before it was damaged."""
    commands = (
        "query-status",
        "query-version",
        "query-commands",
        "stop",
        "cont",
        "x-dwc-status",
        "foo",
        "x-dwc-inject",
    )
    message: dict[str, Any] = {"execute": random_.choice(commands)}
    if random_.random() < 0.5:
        message["id"] = random_.choice((1, -1.5, None, "a", [1], {"a": "}"}))
    if random_.random() < 0.3:
        message["arguments"] = random_.choice(({}, [], {"fault": "x"}, {"fault": "9:e2:rax:1"}, {"a": {}}, 5))
    line = bytearray(json.dumps(message).encode())
    for _ in range(random_.choice((0, 0, 1, 2, 20))):
        at = random_.randrange(len(line) + 1)
        line[at : at + random_.randrange(3)] = random_.randbytes(random_.randrange(3))
    return bytes(line) + random_.choice((b"\n", b"\r\n", b"", b"\n\n"))


@pytest.mark.timeout(300)
def test_noise_does_not_end_it(spin: Path, tmp_path: Path) -> None:
    """10,000 lines, on many connections; some clients read, some go away."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    random_ = random.Random(seed)
    with running(spin, tmp_path, "--strategy", "sequential") as run:
        sent = answers = 0
        while sent < LINES:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(run.path))
                peer.settimeout(REACTS_S)
                lines = b'{"execute": "qmp_capabilities"}\n' if random_.random() < 0.9 else b""
                for _ in range(100):
                    lines += noise(random_)
                    sent += 1
                peer.sendall(lines)
                if random_.random() < 0.8:
                    peer.shutdown(socket.SHUT_WR)
                    while data := peer.recv(1 << 16):
                        answers += data.count(b"\n")
        assert run.process.poll() is None
        assert answers > LINES / 4
        before = figures(run)
        assert before["status"] in ("running", "paused")
        assert run.ctl("cont").returncode == ExitCode.OK
        time.sleep(0.2)
        assert figures(run)["seconds"] > before["seconds"]
        assert run.ctl("quit").returncode == ExitCode.OK
        assert run.ends() == (ExitCode.INTERRUPTED, "interrupted")


def test_a_client_that_floods_does_not_stall_the_guest(guests: Path, tmp_path: Path) -> None:
    """Nor one that never reads. The guest's work takes no more than a few times as long."""

    def seconds(flood: bool) -> float:
        with running(guests / "spin.bin", tmp_path, "--strategy", "off", says=b"tick\n") as run:
            peers = [socket.socket(socket.AF_UNIX) for _ in range(2 * flood)]
            for peer in peers:
                peer.connect(str(run.path))
                peer.setblocking(False)
            while run.process.poll() is None:
                for peer in peers:
                    try:
                        peer.send(b'{"execute": "query-commands"}\n' * 100)
                    except BlockingIOError:
                        time.sleep(0.001)
                    except OSError:
                        pass
                if not peers:
                    time.sleep(0.01)
            for peer in peers:
                peer.close()
            code, _ = run.ends()
            assert code == ExitCode.OK
            return load(run.report).wall_s

    assert seconds(True) < 4 * seconds(False) + 1


# dwcvmm ctl


def test_ctl_for_people(guests: Path, tmp_path: Path) -> None:
    with running(guests / "button.bin", tmp_path, "--strategy", "sequential", says=b"press\n") as run:
        shown = run.ctl("status")
        assert shown.returncode == ExitCode.OK
        for words in ("running under sequential", "elements ", "ended by", "divergences  0 (none)"):
            assert words in shown.stdout
        assert json.loads(run.ctl("status", "--json").stdout)["strategy"] == "sequential"
        for command, status in (("stop", "paused"), ("stop", "paused"), ("cont", "running"), ("cont", "running")):
            done = run.ctl(command)
            assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "", "")
            assert figures(run)["status"] == status
        assert json.loads(run.ctl("query-status").stdout) == {"status": "running", "running": True, "singlestep": False}
        assert run.ctl("report", str(tmp_path / "now.json")).returncode == ExitCode.OK
        assert load(tmp_path / "now.json").strategy == "sequential"
        assert json.loads(run.ctl("report").stdout)["schema"] == "dwcvmm-report/1"
        assert run.ctl("inject", "9999:e2:rax:3").returncode == ExitCode.OK
        for arguments, words in (
            (("inject", "nonsense"), "is no fault"),
            (("inject", "0:e2:rax:3"), "committed already"),
            (("no-such-command",), "has not been found"),
            (("x-dwc-inject", "fault=1"), "expected: string"),
        ):
            refused = run.ctl(*arguments)
            assert refused.returncode == ExitCode.GUEST_FAILED and words in refused.stderr, refused
        for usage in ([], ["inject"], ["stop", "now"], ["query-status", "a"]):
            assert run.ctl(*usage).returncode == ExitCode.USAGE
        waits = [*COMMAND, "ctl", str(run.path), "wait"]
        waiting = subprocess.Popen(waits, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout and run.process.stdout
        while not select.select([waiting.stdout], [], [], 0.1)[0]:  # until it is connected
            assert run.ctl("stop").returncode == run.ctl("cont").returncode == ExitCode.OK
        assert run.ctl("powerdown").returncode == ExitCode.OK
        assert run.process.stdout.readline() == b"press\n"
        assert run.ctl("powerdown").returncode == ExitCode.OK
        assert run.ends() == (ExitCode.OK, "poweroff")
        said, _ = waiting.communicate(timeout=30)
        events = [line for line in said.splitlines() if line not in ("STOP", "RESUME")]
        assert events == ["POWERDOWN", "POWERDOWN", "SHUTDOWN guest=True reason=guest-shutdown"]
        assert waiting.returncode == ExitCode.OK


def test_ctl_where_nobody_listens(spin: Path, tmp_path: Path) -> None:
    for name in ("nobody", "spin.bin"):
        done = ctl(tmp_path / name, "status")
        assert done.returncode == ExitCode.HOST_UNFIT
        assert "no machine listens" in done.stderr and "run --control" in done.stderr
    with running(spin, tmp_path, "--strategy", "off") as run:
        refused = run.ctl("powerdown")
        assert refused.returncode == ExitCode.GUEST_FAILED and "does not listen" in refused.stderr


def test_a_live_socket_is_refused_and_a_stale_one_replaced(spin: Path, tmp_path: Path) -> None:
    with running(spin, tmp_path, "--strategy", "off") as run:
        command = [*COMMAND, "run", "--kernel", str(spin), "--memory", "16M", "--control", str(run.path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == ExitCode.HOST_UNFIT and "another process listens" in done.stderr
        assert run.ctl("status").returncode == ExitCode.OK
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        end = time.monotonic() + REACTS_S
        while run.path.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "control"))
    with running(spin, tmp_path, "--strategy", "off") as run:
        assert run.ctl("quit").returncode == ExitCode.OK
        assert run.ends() == (ExitCode.INTERRUPTED, "interrupted")
