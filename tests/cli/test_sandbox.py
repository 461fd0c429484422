"""What a process in the sandbox can still do, tried in a process of its own; and that guests run in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, needs_kvm
from test_run import dwcvmm

from dwcvmm.errors import ExitCode
from dwcvmm.sandbox import KVM_REQUESTS

ENTER = """
import mmap, os, socket, subprocess, threading
from dwcvmm.sandbox import Sandbox
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
    "signals by a descriptor": "__import__('fcntl').fcntl(0, __import__('fcntl').F_SETOWN, os.getppid())",
    "room in a file": "os.posix_fallocate(1, 0, 1)",
    "CPUs of others": "os.sched_setaffinity(os.getppid(), {0})",
}
ALLOWED = {
    "write": "os.write(1, b'')",
    "thread": "other.start(); other.join()",
    "memory": "bytes(1 << 24)",
    "random numbers": "os.urandom(16)",
    "time": "__import__('time').sleep(0.001)",
    "stopping": "import signal; signal.raise_signal(signal.SIGCONT)",
}


def confined(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ENTER + line], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    done = confined(REFUSED[what])
    assert done.returncode == 1 and "PermissionError" in done.stderr, (done.returncode, done.stderr)


TRAFFIC = """
import os, socket
from dwcvmm.sandbox import Sandbox
ours, theirs = socket.socketpair()
others, _ = socket.socketpair()
sandbox = Sandbox()
sandbox.allow_traffic([ours.fileno()])
sandbox.enter()
os.write(theirs.fileno(), b"in")
assert ours.recv(9) == b"in"
assert ours.send(b"out") == 3
def refused(call):
    try:
        call()
    except PermissionError:
        return True
assert refused(lambda: others.recv(9, socket.MSG_DONTWAIT)) and refused(lambda: others.send(b"x"))
assert refused(lambda: ours.sendto(b"x", "/tmp/dwcvmm-socket")), "to somebody else"
assert refused(lambda: ours.sendmsg([b"x"])), "with descriptors"
print("held")
"""


def test_a_disks_socket_receives_and_sends_and_no_other() -> None:
    done = subprocess.run([sys.executable, "-c", TRAFFIC], capture_output=True, text=True, timeout=60)
    assert done.stdout == "held\n", done.stderr


WALK_REQUESTS = """
import ctypes, errno
from dwcvmm.sandbox import REQUESTS
libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
libc.ioctl(-1, 0x5412, None)
assert ctypes.get_errno() == errno.EPERM, "TIOCSTI"
assert 0xAE80 in REQUESTS.values() and 0x5412 not in REQUESTS.values()
sizes = (0, 1, 2, 4, 8, *range(12, 120, 4), 4096)
for kind in (0x54, 0xAE, 0x24):
    for form in (way << 30 | size << 16 for way in (0, 1, 2, 3) for size in sizes):
        for number in range(256):
            request = form | kind << 8 | number
            for asked in (request, request | 1 << 32):  # the kernel does not look at what is above
                libc.ioctl(-1, asked, None)
                wanted = errno.EBADF if request in REQUESTS.values() else errno.EPERM
                assert ctypes.get_errno() == wanted, hex(asked)
"""


def test_every_request_but_those_in_use_is_refused() -> None:
    """To a descriptor that is none: what passes the filter ends as EBADF. TIOCSTI types into the user's shell."""
    done = confined(WALK_REQUESTS)
    assert done.returncode == 0, done.stderr


BEFORE_IT_RUNS = {"KVM_ENABLE_CAP", "KVM_X86_SET_MSR_FILTER"}
WALK_CALLS = """
import ctypes, errno
from dwcvmm import sandbox
library, libc = sandbox._library(), ctypes.CDLL(None, use_errno=True)
library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
names = {number: library.seccomp_syscall_resolve_num_arch(0xC000003E, number) for number in range(512)}
some = {name for name, _ in sandbox._conditions()} | {"clone3"}
refused = {number: name.decode() for number, name in names.items() if name}
refused = {number: name for number, name in refused.items() if name not in sandbox.ALLOWED and name not in some}
assert len(refused) > 200
assert {"openat", "execve", "ptrace", "socket", "kill", "perf_event_open"} <= set(refused.values())
sandbox.Sandbox().enter()
for number, name in refused.items():
    libc.syscall(number, -1, -1, -1, -1, -1, -1)
    assert ctypes.get_errno() == errno.EPERM, name
"""


def test_every_call_but_those_listed_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", WALK_CALLS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_the_core_asks_of_kvm_while_a_guest_runs_is_allowed() -> None:
    """Every request that cbits makes, of a VM that runs."""
    asked = {
        name
        for file in (ROOT / "cbits").rglob("*.c")
        for name in re.findall(r"dwc_ioctl\([^,]+,\s*(KVM_\w+)", file.read_text())
    }
    assert "KVM_RUN" in asked
    assert asked - BEFORE_IT_RUNS <= KVM_REQUESTS.keys()
    assert not BEFORE_IT_RUNS & KVM_REQUESTS.keys()


@pytest.mark.parametrize("what", ALLOWED)
def test_allowed(what: str) -> None:
    assert confined(ALLOWED[what]).returncode == 0


def test_all_threads_are_in_it_and_gain_no_privileges() -> None:
    code = """
import sys, threading
from dwcvmm.sandbox import Sandbox
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
