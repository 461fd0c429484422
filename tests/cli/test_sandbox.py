"""What a process in the sandbox can still do, tried in a process of its own; and that guests run in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs_kvm
from test_run import dwcvmm

from dwcvmm.errors import ExitCode

ENTER = """
import mmap, os, socket, subprocess, threading
from dwcvmm.machine.sandbox import Sandbox
other = threading.Thread(target=lambda: None)
Sandbox().enter()
"""
REFUSED = {
    "open to read": "open('/etc/passwd')",
    "open to write": "open('/tmp/dwcvmm-sandbox', 'w')",
    "remove": "os.unlink('/tmp/dwcvmm-sandbox')",
    "socket": "socket.socket(socket.AF_INET)",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "fork": "os.fork()",
    "program": "os.execv('/bin/true', ['true'])",
    "child": "subprocess.run(['/bin/true'])",
    "code": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "signal to others": "os.kill(os.getppid(), 0)",
    "root": "os.setuid(0)",
    "mount": "os.chroot('/')",
    "control of a device": "__import__('fcntl').ioctl(0, 0x1268)",  # BLKSSZGET
}
ALLOWED = {
    "write": "os.write(1, b'')",
    "thread": "other.start(); other.join()",
    "memory": "bytes(1 << 24)",
    "random numbers": "os.urandom(16)",
    "time": "__import__('time').sleep(0.001)",
}


def confined(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ENTER + line], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    done = confined(REFUSED[what])
    assert done.returncode == 1 and "PermissionError" in done.stderr, (done.returncode, done.stderr)


@pytest.mark.parametrize("what", ALLOWED)
def test_allowed(what: str) -> None:
    assert confined(ALLOWED[what]).returncode == 0


def test_all_threads_are_in_it_and_gain_no_privileges() -> None:
    code = """
import sys, threading
from dwcvmm.machine.sandbox import Sandbox
go, result = threading.Event(), []
def look():
    go.wait()
    try:
        open('/etc/passwd')
    except PermissionError:
        result.append(True)
def status():
    file.seek(0)
    return dict(line.split(':', 1) for line in file.read().splitlines())
thread = threading.Thread(target=look)
thread.start()
file = open('/proc/self/status')
before = status()
Sandbox().enter()
go.set()
thread.join()
after = status()
print(result, before['NoNewPrivs'].strip(), after['NoNewPrivs'].strip(), after['Seccomp'].strip())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["[True]", "0", "1", "2"], done.stderr


@needs_kvm
@pytest.mark.parametrize("strategy", ["off", "sequential", "parallel"])
def test_a_guest_runs_and_crashes_in_it(guests: Path, tmp_path: Path, strategy: str) -> None:
    """The post-mortem, the report, events and a kept divergence need no file that was not open before."""
    files = ("--report", tmp_path / "r.json", "--events", tmp_path / "events", "--keep-divergence", tmp_path / "d")
    common = ("run", "--memory", "16M", "--strategy", strategy, *files)
    fault = () if strategy == "off" else ("--fault", "20:e2:rbx:3")
    for guest, code in (("ports", ExitCode.OK), ("triple", ExitCode.GUEST_FAILED)):
        done = dwcvmm(*common, "--kernel", guests / f"{guest}.bin", *(fault if guest == "ports" else ()))
        assert done.returncode == code, done.stderr
        assert "Permission" not in done.stderr
    assert (tmp_path / "r.json").stat().st_size > 1000
    assert bool((tmp_path / "d").stat().st_size) == (strategy != "off")
