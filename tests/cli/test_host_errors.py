"""What the host refuses, and bugs: a sentence and an exit code that says whose fault it was, for every command."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, needs_kvm
from test_run import dwcvmm

from dwcvmm.errors import ExitCode
from dwcvmm.pc import hostmemory
from dwcvmm.pc.hostmemory import FreeMemory
from dwcvmm.results.reportfile import load

MIB = 1 << 20
GUEST = b"\xb0\x41\x66\xba\xf8\x03\xee\x30\xc0\xe6\xf4"  # "A", and the debug exit


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    file = tmp_path / "a.bin"
    file.write_bytes(GUEST)
    return file


def planted(program: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, with something of it replaced."""
    command = [sys.executable, "-c", f"{program}\nfrom dwcvmm.cli.main import main; main()", *map(str, arguments)]
    found = os.environ | environment
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=found, stdin=subprocess.DEVNULL
    )


@needs_kvm
def test_a_bug_says_that_it_is_one_and_the_report_is_written(kernel: Path, tmp_path: Path) -> None:
    bug = "from dwcvmm.pc.serialports import SerialPorts\ndef fail(self): raise KeyError('x')\nSerialPorts.drain = fail"
    command = ("run", "--kernel", kernel, "--memory", "16M", "--report", tmp_path / "r.json")
    done = planted(bug, *command)
    assert done.returncode == ExitCode.INTERNAL
    assert "KeyError: 'x'; this is a bug of dwcvmm" in done.stderr
    assert "Traceback" not in done.stderr
    report = load(tmp_path / "r.json")
    assert (report.outcome, report.error) == ("error", "KeyError: 'x'")
    assert "Traceback" in planted(bug, *command, DWCVMM_DEBUG="1").stderr


@needs_kvm
@pytest.mark.parametrize("what", ["--console", "--events"])
def test_the_report_of_a_run_that_a_full_device_ended(kernel: Path, tmp_path: Path, what: str) -> None:
    report = tmp_path / "r.json"
    done = dwcvmm("run", "--kernel", kernel, "--memory", "16M", "--report", report, what, "/dev/full")
    assert done.returncode == ExitCode.HOST_UNFIT
    assert "No space left on device" in done.stderr
    if what == "--console":  # the events fail before the guest starts
        assert "cannot write the console to /dev/full" in str(load(report).error)


@needs_kvm
@pytest.mark.parametrize(
    "command", [["--help"], ["run", "--help"], ["doctor"], ["doctor", "--json"], ["check", "--guest", "ports"]]
)
def test_a_full_stdout_is_the_hosts_fault(guests: Path, command: list[str]) -> None:
    more = ["--elements", "10"] if command[0] == "check" else []
    with Path("/dev/full").open("w") as full:
        done = dwcvmm(*command, *more, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == ExitCode.HOST_UNFIT, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@needs_kvm
def test_a_closed_stdout_is_the_hosts_fault() -> None:
    done = dwcvmm("doctor", preexec_fn=lambda: os.close(1))
    assert done.returncode == ExitCode.HOST_UNFIT
    assert "cannot write to stdout" in done.stderr


@needs_kvm
def test_a_full_stderr_changes_nothing(kernel: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = dwcvmm("run", "--kernel", kernel, "--memory", "16M", capture_output=False, stdout=-1, stderr=full)
        assert (done.returncode, done.stdout) == (ExitCode.OK, "A")
        done = dwcvmm("run", "--kernel", "none", capture_output=False, stdout=-1, stderr=full)
        assert done.returncode == ExitCode.CONFIG
        assert dwcvmm("run", capture_output=False, stdout=-1, stderr=full).returncode == ExitCode.USAGE


def test_nobody_reads_the_result_any_more() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    assert dwcvmm("doctor", capture_output=False, stdout=write_end).returncode == ExitCode.INTERRUPTED
    os.close(write_end)


@needs_kvm
@pytest.mark.parametrize("strategy", ["off", "sequential"])
def test_memory_that_the_process_may_not_have(kernel: Path, strategy: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 * MIB, 600 * MIB))

    done = dwcvmm("run", "--kernel", kernel, "--memory", "1G", "--strategy", strategy, preexec_fn=limit)
    assert done.returncode == ExitCode.HOST_UNFIT, done.stderr
    assert "does not give memory for a guest of 1024 MiB" in done.stderr


@needs_kvm
def test_memory_that_the_host_has_not(kernel: Path) -> None:
    """One copy of RAM has to fit. All copies need not: the guest may never use them."""
    little = "from dwcvmm.pc.hostmemory import FreeMemory\nFreeMemory._of_host = lambda self: [500 << 20]"
    run = ("run", "--kernel", kernel, "--memory")
    for strategy in ("sequential", "off"):
        done = planted(little, *run, "501M", "--strategy", strategy)
        assert done.returncode == ExitCode.HOST_UNFIT
        assert "the guest has 501 MiB, and this host has 500 MiB free; use a smaller --memory" in done.stderr
    done = planted(little, *run, "256M", "--strategy", "sequential")
    assert done.returncode == ExitCode.OK
    assert "can come to need 768 MiB with all copies of its RAM, and this host has 500 MiB free" in done.stderr
    assert "memory" not in planted(little, *run, "256M", "--strategy", "off").stderr


@needs_kvm
@pytest.mark.parametrize("strategy", ["off", "sequential", "parallel"])
def test_memory_that_runs_out_ends_the_run_with_an_error(guests: Path, tmp_path: Path, strategy: str) -> None:
    """The guest uses 60 MiB, and the host has 40 more than its reserve."""
    little = """
import os
from dwcvmm.pc import hostmemory
from dwcvmm.pc.hostmemory import FreeMemory
def resident():
    fd = os.open("/proc/self/statm", os.O_RDONLY)
    return fd, lambda: int(os.pread(fd, 99, 0).split()[1]) * 4096
fd, used = resident()
most = used() + hostmemory.RESERVE + (40 << 20)
hostmemory.SOONEST_S = hostmemory.LATEST_S = 0.001
hostmemory.FreeMemory._of_host = lambda self: [most - used()]
"""
    report = tmp_path / "r.json"
    command = ("run", "--kernel", guests / "memory.bin", "--memory", "64M", "--strategy", strategy, "--report", report)
    done = planted(little, *command)
    assert done.returncode == ExitCode.HOST_UNFIT, done.stderr
    assert "memory ran out" in done.stderr
    assert "memory ran out" in str(load(report).error)
    assert "memory: OK" not in done.stdout


def test_what_the_host_and_its_control_groups_leave(tmp_path: Path) -> None:
    meminfo, group = tmp_path / "meminfo", tmp_path / "cg" / "a" / "b"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\nSwapFree:  96 kB\nHugePages_Total: 0\n")
    group.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("4:memory:/old\n0::/a/b\n")
    for where, most, used in ((group, "max", 5), (group.parent, f"{100 * MIB}", 30 * MIB)):
        (where / "memory.max").write_text(f"{most}\n")
        (where / "memory.current").write_text(f"{used}\n")
    (group.parent / "memory.stat").write_text(f"anon 7\ninactive_file {10 * MIB}\n")
    free = FreeMemory(meminfo, tmp_path / "cg", own)
    assert free.free_bytes() == 4096 << 10
    meminfo.write_text("MemAvailable: 900000 kB\n")
    assert free.free_bytes() == 80 * MIB
    (group.parent / "memory.current").write_text(f"{90 * MIB}\n")
    assert free.free_bytes() == 20 * MIB
    free.close()
    unknown = FreeMemory(tmp_path / "none", tmp_path, tmp_path / "none")
    assert unknown.free_bytes() is None
    assert hostmemory.check_free(1 << 50, 3, unknown) is None


@needs_kvm
def test_threads_that_the_process_may_not_have(kernel: Path) -> None:
    refuse = (
        "import threading\nreal = threading.Thread.start\n"
        "def start(self):\n    if self.name == 'machine': raise RuntimeError('no new thread')\n    real(self)\n"
        "threading.Thread.start = start"
    )
    done = planted(refuse, "run", "--kernel", kernel, "--memory", "16M")
    assert done.returncode == ExitCode.HOST_UNFIT, done.stderr
    assert "no thread for the machine" in done.stderr


@needs_kvm
def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    kernel = tmp_path / os.fsdecode(b"\xff.bin")
    kernel.write_bytes(GUEST)
    common = [*COMMAND, "run", "--kernel", str(kernel), "--memory", "16M"]
    command = [*common, "--report", str(tmp_path / "r.json"), "--events", str(tmp_path / "e")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == ExitCode.OK, done.stderr
    assert load(tmp_path / "r.json").guest.kernel.endswith("\\udcff.bin")
    assert json.loads((tmp_path / "e").read_text().splitlines()[0])["kernel"].endswith("\\udcff.bin")


@needs_kvm
def test_files_that_are_larger_than_the_guests_memory(guests: Path, tmp_path: Path) -> None:
    large, huge = tmp_path / "large.bin", tmp_path / "huge.bin"
    for file, size in ((large, 20 * MIB), (huge, 1 << 40)):
        with file.open("wb") as out:
            out.truncate(size)
    common = ("--memory", "16M", "--strategy", "off")
    cases = [("--kernel", large), ("--kernel", huge), ("--kernel", guests / "multiboot.bin", "--initrd", large)]
    cases += [("--kernel", guests / "multiboot.bin", "--module", f"{huge} words")]
    for case in cases:
        done = dwcvmm("run", *common, *case)
        assert done.returncode == ExitCode.CONFIG, done.stderr
        assert "Traceback" not in done.stderr


@needs_kvm
def test_a_kernel_and_its_module_come_from_pipes(guests: Path, tmp_path: Path) -> None:
    script = f"{sys.executable} -c 'from dwcvmm.cli.main import main; main()' run --memory 16M -q"
    script += f" --kernel <(gzip -c {guests}/multiboot2.bin) --append words --initrd <(echo a module)"
    script += f" --report >(cat > {tmp_path}/r.json)"
    done = subprocess.run(["bash", "-c", f"{script}; wait"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert load(tmp_path / "r.json").guest.kernel.startswith("/dev/fd/"), done.stderr
    assert done.stdout


def test_reports_that_are_no_baseline(kernel: Path, tmp_path: Path) -> None:
    file = tmp_path / "seq.json"
    common = ("run", "--kernel", kernel, "--memory", "16M")
    assert dwcvmm(*common, "--strategy", "sequential", "--report", file).returncode == ExitCode.OK
    done = dwcvmm(*common, "--strategy", "sequential", "--baseline", file)
    assert done.returncode == ExitCode.CONFIG
    assert "of a run under sequential: a baseline is one with --strategy off" in done.stderr
    off = tmp_path / "off.json"
    other = tmp_path / "b.bin"
    other.write_bytes(GUEST + b"\x90")
    dwcvmm("run", "--kernel", other, "--memory", "16M", "--strategy", "off", "--report", off)
    assert "of another kernel" in dwcvmm(*common, "--baseline", off).stderr
    other.write_bytes(b"\xfa\xf4")
    dwcvmm("run", "--kernel", other, "--memory", "16M", "--strategy", "off", "--report", off)
    assert "ended by halt" in dwcvmm("run", "--kernel", other, "--memory", "16M", "--baseline", off).stderr


@needs_kvm
def test_a_fault_that_is_never_reached_is_told(kernel: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    faults = ("--fault", "0:e2:r15:3", "--fault", "5000:e2:rax:3", "--fault", "6000:cpu0:rax:1")
    command = ("run", "--kernel", kernel, "--memory", "16M", "--strategy", "parallel", *faults, "--report", file)
    done = dwcvmm(*command)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "fault        5000:e2:rax:3: not reached" in done.stderr
    became = [(fault.fault, fault.became) for fault in load(file).faults]
    assert became[0] == ("0:e2:r15:3", "injected")
    assert sorted(became[1:]) == [("5000:e2:rax:3", "not reached"), ("6000:cpu0:rax:1", "not reached")]


@needs_kvm
@pytest.mark.parametrize("strategy", ["off", "sequential", "parallel"])
@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        (b"\xfa\xf4", ExitCode.GUEST_FAILED, "HLT with interrupts off"),  # cli; hlt
        (b"\xb0\x41\x66\xba\xf8\x03\xee\xfa\xf4\xeb\xfd", ExitCode.GUEST_FAILED, "HLT with interrupts off"),
        (b"\xfa\x30\xc0\xe6\xf4\xf4", ExitCode.OK, ""),  # cli; the debug exit, 0; hlt
        (b"\xfa\xb0\x03\xe6\xf4\xf4", ExitCode.GUEST_FAILED, ""),  # the same with 3
        (b"\x66\xba\x04\x06\x66\xb8\x00\x20\x66\xef\xfa\xf4", ExitCode.OK, ""),  # ACPI's power-off; cli; hlt
    ],
)
def test_a_guest_that_halts_for_good_has_failed(
    tmp_path: Path, strategy: str, code: bytes, exit_code: ExitCode, words: str
) -> None:
    (tmp_path / "k.bin").write_bytes(code)
    report = tmp_path / "r.json"
    command = ("run", "--kernel", tmp_path / "k.bin", "--memory", "16M", "--strategy", strategy, "--report", report)
    done = dwcvmm(*command)
    assert done.returncode == exit_code, done.stderr
    assert ("HALTED" in done.stderr) == bool(words)
    assert words in done.stderr
    assert load(report).outcome == ("halt" if words else "poweroff")
    assert bool(load(report).post_mortem) == bool(words)


@needs_kvm
def test_a_search_that_takes_seconds_is_said(kernel: Path) -> None:
    search = "from dwcvmm.pc.pc import PC\nreal = PC.run\ndef run(self, *words):\n"
    search += "    self.observers.search('looking by steps')\n    return real(self, *words)\nPC.run = run"
    common = ("run", "--kernel", kernel, "--memory", "16M")
    assert "dwcvmm: looking by steps\n" in planted(search, *common).stderr
    assert "looking" not in planted(search, *common, "--quiet").stderr
