"""A core dump of a machine that runs in the sandbox: by its control socket and by gdb, read by gdb and readelf."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from conftest import COMMAND, ROOT, find_program, needs_kvm
from test_control import SPIN, ctl

from dwcvmm.errors import ExitCode

pytestmark = needs_kvm
STRATEGIES = ("off", "sequential", "parallel")


@pytest.fixture
def spin(tmp_path: Path) -> Path:
    (image := tmp_path / "spin.bin").write_bytes(SPIN)
    return image


@contextmanager
def running(kernel: Path, directory: Path, *options: str) -> Iterator[Path]:
    """Its control socket, once it has printed a line."""
    run = ["run", "--kernel", str(kernel), "--memory", "16M", "--control", str(directory / "control"), *options]
    process = subprocess.Popen(
        [*COMMAND, *run], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout and process.stdout.readline() == b"A\n"
        yield directory / "control"
        assert process.poll() is None, "it goes on"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_dump_by_the_control_socket(spin: Path, tmp_path: Path, strategy: str) -> None:
    dump = tmp_path / "core"
    with running(spin, tmp_path, "--strategy", strategy, "--dump-to", str(dump)) as control:
        for _ in range(2):
            done = ctl(control, "dump")
            assert (done.returncode, done.stdout[:8]) == (ExitCode.OK, "dumped: "), done.stderr
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    assert dump.stat().st_blocks * 512 < 1 << 20, "pages of zeros are holes"
    shown = subprocess.run(
        [find_program("readelf", "binutils"), "-hlnW", dump], capture_output=True, text=True, check=True
    )
    assert shown.stderr == ""
    assert "CORE (Core file)" in shown.stdout and "NT_PRSTATUS" in shown.stdout and "QEMU" in shown.stdout
    gdb = find_program("gdb", "gdb")
    done = subprocess.run(
        [
            gdb,
            "-nx",
            "-batch",
            "-ex",
            f"core-file {dump}",
            "-ex",
            "p/x $rip",
            "-ex",
            "x/2bx 0x10000a",
            "-ex",
            "x/i $pc",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "= 0x10000a" in done.stdout and "0xeb\t0xfe" in done.stdout and "jmp    0x10000a" in done.stdout, done


def test_without_a_file_it_is_refused(spin: Path, tmp_path: Path) -> None:
    with running(spin, tmp_path) as control:
        done = ctl(control, "dump")
    assert (done.returncode, "--dump-to" in done.stderr) == (ExitCode.GUEST_FAILED, True)


def test_a_pipe_is_refused(spin: Path, tmp_path: Path) -> None:
    run = [*COMMAND, "run", "--kernel", str(spin), "--dump-to", "/dev/null"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == ExitCode.CONFIG and "regular file" in done.stderr


def test_a_dump_by_its_key(spin: Path, tmp_path: Path) -> None:
    dump = tmp_path / "core"
    run = ["run", "--kernel", str(spin), "--memory", "16M", "--dump-to", str(dump)]
    console = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *run], cwd=ROOT, timeout=30, encoding="utf-8")
    console.expect("A\r\n")
    console.send("\x01d")
    console.expect(r"dumped element \d+ in .*core")
    console.send("\x01x")
    console.expect(pexpect.EOF)
    assert dump.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is missing (package gdb)")
def test_gdb_asks_for_a_dump(spin: Path, tmp_path: Path) -> None:
    dump, where = tmp_path / "core", tmp_path / "gdb"
    with running(spin, tmp_path, "--dump-to", str(dump), "--gdb", f"unix:{where}"):
        done = subprocess.run(
            ["gdb", "-nx", "-batch", "-ex", f"target remote {where}", "-ex", "monitor dump", "-ex", "monitor save"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert "dumped: " in done.stdout + done.stderr and "--save-to names it" in done.stdout + done.stderr
    assert dump.read_bytes()[:4] == b"\x7fELF"
