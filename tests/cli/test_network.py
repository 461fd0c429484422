"""`dwcvmm run --net` as people use it: in the sandbox, with passt, and what becomes of it when either is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import COMMAND, find_program, needs_kvm
from passtprocesses import own_mtu, passts, wait_for

from dwcvmm.net.backend import LENGTH

pytestmark = needs_kvm
ROUNDS, BYTES, ANSWER = 256, 4080, 64  # guest-images/frames/frames.asm


def run(guests: Path, net: str, *options: str) -> list[str]:
    kernel = ["--kernel", str(guests / "frames.bin"), "--memory", "16M"]
    return [*COMMAND, "run", *kernel, "--net", net, "--strategy", "sequential", *options]


def answer(listening: socket.socket, frames: list[bytes]) -> None:
    connection, _ = listening.accept()
    with connection, connection.makefile("rb") as stream:
        while prefix := stream.read(LENGTH.size):
            frames.append(stream.read(LENGTH.unpack(prefix)[0]))
            connection.sendall(LENGTH.pack(ANSWER) + bytes(byte ^ 0xFF for byte in frames[-1][:ANSWER]))


def test_frames_pass_the_sandbox(guests: Path, tmp_path: Path) -> None:
    path, report, frames = tmp_path / "socket", tmp_path / "report.json", list[bytes]()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=answer, args=(listening, frames))
        thread.start()
        done = subprocess.run(run(guests, f"socket={path}", "--report", str(report)), capture_output=True, timeout=100)
        thread.join(10)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"frames: OK\n"
    assert b"network      socket, 52:54:00:12:34:56: 256 frames with 16384 bytes in, 256 frames" in done.stderr
    assert len(frames) == ROUNDS
    (network,) = json.loads(report.read_text())["networks"]
    assert network["sent"] == {"frames": ROUNDS, "bytes": ROUNDS * BYTES, "dropped": 0}
    assert network["received"] == {"frames": ROUNDS, "bytes": ROUNDS * ANSWER, "dropped": 0}


@pytest.fixture
def passt() -> str:
    return find_program("passt", "passt")


@pytest.mark.usefixtures("passt")
def test_passt_is_gone_when_the_machine_is_killed(guests: Path) -> None:
    """The guest waits for an answer to its frame, which is none that passt knows."""
    mtu = own_mtu()
    process = subprocess.Popen(run(guests, f"user,mtu={mtu}"), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(lambda: len(passts(mtu)) == 1)
    time.sleep(0.5)
    process.kill()
    process.communicate()
    wait_for(lambda: not passts(mtu))


@pytest.mark.usefixtures("passt")
def test_the_machine_goes_on_when_passt_is_killed(guests: Path, tmp_path: Path) -> None:
    mtu, report = own_mtu(), tmp_path / "report.json"
    command = run(guests, f"user,mtu={mtu}", "--report", str(report), "--timeout", "4s", "-q")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(passts(mtu)) == 1)
        time.sleep(1)
        os.kill(passts(mtu).pop(), signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 6, said
    result = json.loads(report.read_text())
    assert result["outcome"] == "timeout"
    assert result["networks"][0]["link_up"] is False


def test_no_passt(guests: Path) -> None:
    done = subprocess.run(run(guests, "user"), capture_output=True, env=os.environ | {"PATH": "/nonexistent"})
    assert done.returncode == 4
    assert b"there is no passt on this host; install it (Debian: passt)" in done.stderr


@pytest.mark.parametrize("net", ["user,forward=tcp:127.0.0.1:0:80", "tap", "other", "user,mac=1"])
def test_usage(guests: Path, net: str) -> None:
    done = subprocess.run(run(guests, net), capture_output=True)
    assert done.returncode == 2, done.stderr


def test_a_socket_that_is_not_there(guests: Path, tmp_path: Path) -> None:
    done = subprocess.run(run(guests, f"socket={tmp_path}/none"), capture_output=True)
    assert done.returncode == 3
    assert b"none: No such file or directory" in done.stderr


OPEN_TAP = """
import sys
from dwcvmm.errors import HostError
from dwcvmm.net.config import NetConfig
from dwcvmm.net.tap import open_tap
import os
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    open_tap(NetConfig(tap="dwctap9"))
except HostError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="be root, to give up its rights")
def test_a_tap_without_rights() -> None:
    """A user may open /dev/net/tun, but makes no interface."""
    done = subprocess.run([sys.executable, "-c", OPEN_TAP], capture_output=True)
    assert done.returncode == 4, done
    if Path("/dev/net/tun").exists():
        assert b"ip tuntap add dwctap9 mode tap user $USER" in done.stdout
    else:
        assert b"modprobe tun" in done.stdout
