"""The command as people use it: outcomes, exit codes, bad input, signals, a terminal, no terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pexpect
import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.errors import ExitCode
from dwcvmm.pc.boot.kinds import LEGACY_PC_DEFAULTS, LINUX_DEFAULTS
from dwcvmm.results.reportfile import load


def dwcvmm(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "timeout": 110, "stdin": subprocess.DEVNULL} | options
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=ROOT, **options)


def start_spinning(report: Path) -> subprocess.Popen[bytes]:
    """A guest that waits for ever, once its run is under way."""
    image = report.with_suffix(".bin")
    image.write_bytes(b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe")  # prints "A\n", then jmp $
    run = ["run", "--kernel", str(image), "--memory", "16M", "--strategy", "off", "--report", str(report)]
    process = subprocess.Popen(
        [*COMMAND, *run], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"A\n"
    return process


@needs_kvm
def test_guest_output_on_stdout_summary_on_stderr(guests: Path, tmp_path: Path) -> None:
    report, events = tmp_path / "r.json", tmp_path / "e.ndjson"
    result = dwcvmm(
        *("run", "--kernel", guests / "ports.bin", "--memory", "16M", "--strategy", "sequential"),
        *("--report", report, "--events", events),
    )
    assert result.returncode == ExitCode.OK
    assert result.stdout == (ROOT / "guest-images" / "ports" / "token").read_text()
    assert "committed" in result.stderr
    written = load(report)
    assert written.outcome == "poweroff"
    assert written.elements.committed == sum(written.elements.by_end.values())
    assert written.elements.unprotected == 0
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()] == ["start", "end"]


@needs_kvm
def test_the_date_is_the_hosts_or_what_is_said(guests: Path, tmp_path: Path) -> None:
    """The guest wants it to be 2023-11-14 22:13, and ends with the number of what is not."""
    report = tmp_path / "r.json"
    run = ("run", "--kernel", guests / "rtc.bin", "--memory", "16M", "--strategy", "off", "--report", report)
    before = datetime.now(UTC).replace(tzinfo=None)
    assert dwcvmm(*run).returncode == ExitCode.GUEST_FAILED
    host = load(report).guest
    assert host.status > 1
    assert before <= datetime.fromisoformat(host.rtc.removeprefix("utc=")) <= datetime.now(UTC).replace(tzinfo=None)
    for date in ("fixed", "utc=2023-11-14T22:13:00"):
        assert dwcvmm(*run, "--rtc", date).returncode == ExitCode.OK
        assert load(report).guest.rtc == date
    refused = dwcvmm(*run, "--rtc", "yesterday")
    assert refused.returncode == ExitCode.USAGE
    assert "none of host, fixed, and utc=DATE" in refused.stderr


@needs_kvm
def test_crash_has_a_post_mortem_and_exit_code_1(guests: Path) -> None:
    result = dwcvmm("run", "--kernel", guests / "triple.bin", "--memory", "16M", "--strategy", "off")
    assert result.returncode == ExitCode.GUEST_FAILED
    for words in ("triple fault", "rip 0x", "cr3", "PML4E"):
        assert words in result.stderr


@needs_kvm
def test_timeout(guests: Path, tmp_path: Path) -> None:
    process = start_spinning(tmp_path / "r.json")
    process.kill()
    process.wait()
    result = dwcvmm("run", "--kernel", tmp_path / "r.bin", "--memory", "16M", "--timeout", "2", "--strategy", "off")
    assert result.returncode == ExitCode.TIMEOUT


@needs_kvm
def test_baseline_gives_the_penalty(guests: Path, tmp_path: Path) -> None:
    off, protected = tmp_path / "off.json", tmp_path / "seq.json"
    common = ("run", "--kernel", guests / "ports.bin", "--memory", "16M")
    dwcvmm(*common, "--strategy", "off", "--report", off)
    dwcvmm(*common, "--strategy", "sequential", "--report", protected, "--baseline", off)
    baseline, report = load(off), load(protected)
    assert baseline.elements.unprotected == baseline.elements.committed
    assert baseline.penalty_percent is None
    assert report.penalty_percent == pytest.approx(100 * (report.wall_s / baseline.wall_s - 1))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--kernel", "/no/such/file"], ExitCode.CONFIG, "No such file"),
        (["--kernel", "/"], ExitCode.CONFIG, "Is a directory"),
        (["--kernel", "README.md"], ExitCode.CONFIG, "neither a Linux bzImage"),
        (["--kernel", "truncated"], ExitCode.CONFIG, "truncated"),
        (["--kernel", "arm"], ExitCode.CONFIG, "ARM64"),
        (["--kernel", "good.bin", "--memory", "1M"], ExitCode.CONFIG, "memory of"),
        (["--kernel", "good.bin", "--memory", "16M", "--report", "/no/such/dir/r"], ExitCode.CONFIG, "report"),
        (["--kernel", "good.bin", "--memory", "16M", "--baseline", "README.md"], ExitCode.CONFIG, "is not a"),
        (["--kernel", "good.bin", "--strategy", "triple"], ExitCode.USAGE, "triple"),
        (["--kernel", "good.bin", "--flush", "dirty"], ExitCode.USAGE, "in-place"),
        (["--kernel", "good.bin", "--strategy", "sequential", "--flush", "none"], ExitCode.USAGE, "in-place"),
        (["--kernel", "good.bin", "--strategy", "in-place", "--flush", "most"], ExitCode.USAGE, "most"),
        (["--kernel", "good.bin", "--strategy", "in-place", "--checkpoint-every", "2"], ExitCode.CONFIG, "checkpoint"),
        (["--kernel", "good.bin", "--strategy", "in-place", "--progress", "branches"], ExitCode.CONFIG, "slices"),
        (["--kernel", "good.bin", "--progress", "cycles"], ExitCode.USAGE, "cycles"),
        (["--kernel", "good.bin", "--tsc", "backwards"], ExitCode.USAGE, "backwards"),
        (["--kernel", "good.bin", "--slice", "1s"], ExitCode.USAGE, "--slice"),
        (["--kernel", "good.bin", "--memory", "lots"], ExitCode.USAGE, "--memory"),
        ([], ExitCode.USAGE, "--kernel"),
        (["--kernel", "good.bin", "--bios", "good.bin"], ExitCode.CONFIG, "neither qboot"),
        (["--kernel", "good.bin", "--initrd", "good.bin"], ExitCode.CONFIG, "takes no initrd"),
        (["--kernel", "efi"], ExitCode.CONFIG, "an EFI application"),
    ],
)
@needs_kvm
def test_bad_input(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "truncated").write_bytes(bytes(0x202) + b"HdrS" + bytes(10))
    (tmp_path / "arm").write_bytes(bytes(56) + b"ARM\x64" + bytes(100))
    efi = b"MZ".ljust(60, b"\0") + b"\x40\0\0\0PE"
    (tmp_path / "efi").write_bytes(efi.ljust(156, b"\0") + b"\x0a".ljust(1000, b"\0"))  # subsystem 10
    (tmp_path / "good.bin").write_bytes(b"\xf4")
    (tmp_path / "README.md").write_text("# not a kernel\n" * 100)
    result = subprocess.run([*COMMAND, "run", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@needs_kvm
def test_names_and_arguments_that_are_not_utf_8(guests: Path, tmp_path: Path) -> None:
    """The kernel gets their bytes; files of ours, which are UTF-8, show which."""
    kernel, report, kept = os.fsencode(tmp_path) + b"/\xff kernel", tmp_path / "r.json", tmp_path / "k.div"
    Path(os.fsdecode(kernel)).write_bytes((guests / "multiboot2.bin").read_bytes())
    files: list[str | bytes | Path] = ["--report", report, "--events", tmp_path / "e.ndjson", "--keep-divergence", kept]
    command: list[str | bytes | Path] = [
        *COMMAND,
        "run",
        "--kernel",
        kernel,
        "--append",
        b"h\xc3\xb6st=\xff",
        "--memory",
        "16M",
        "--end-at",
        "io",
        "--fault",
    ]
    command += ["20:e2:rip:3", "--strategy", "sequential", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert result.returncode == ExitCode.OK, result.stderr
    assert b"text " + kernel.replace(b" ", b"%20") + b" h\xc3\xb6st=\xff\n" in result.stdout
    assert (load(report).guest.command_line, load(report).guest.kernel[-13:]) == ("höst=\\udcff", "\\udcff kernel")
    assert "höst=\\udcff" in dwcvmm("diff", kept).stdout


@needs_kvm
def test_what_a_kernel_is_told_and_taken_for_is_said(guests: Path, tmp_path: Path) -> None:
    (linux := tmp_path / "vmlinuz").write_bytes(
        (guests / "bzimage.bin").read_bytes().replace(b"guest 0.1", b"6.1 (x@y)")
    )
    common = ("--append", "quiet", "--memory", "16M", "--strategy", "off")
    result = dwcvmm("run", "--kernel", linux, *common)
    assert f"arguments    {LINUX_DEFAULTS} " in result.stderr
    assert result.stdout.startswith(f"32-bit {LINUX_DEFAULTS} quiet\n")
    result = dwcvmm("run", "--kernel", linux, "--legacy-pc", *common)
    assert result.stdout.startswith(f"32-bit {LEGACY_PC_DEFAULTS} quiet\n")
    for arguments in (("--kernel", linux, "--no-default-append"), ("--kernel", guests / "bzimage.bin")):
        result = dwcvmm("run", *arguments, *common)
        assert "arguments" not in result.stderr
        assert result.stdout.startswith("32-bit quiet\n")
    assert "flat image, by its name alone" in dwcvmm("run", "--kernel", guests / "ports.bin", "--memory", "16M").stderr


@pytest.mark.parametrize(
    ("errno_name", "words"), [("ENOENT", "cannot open /dev/kvm"), ("EACCES", "join the kvm group")]
)
def test_without_kvm_the_error_names_the_remedy(tmp_path: Path, errno_name: str, words: str) -> None:
    """os.open is the one call between the tool and the device; as root no permission can be missing."""
    (tmp_path / "good.bin").write_bytes(b"\xf4")
    program = (
        "import errno, os\n"
        "def refuse(path, *rest, real=os.open, **more):\n"
        "    if path == '/dev/kvm':\n"
        f"        raise OSError(errno.{errno_name}, os.strerror(errno.{errno_name}))\n"
        "    return real(path, *rest, **more)\n"
        "os.open = refuse\n"
        "from dwcvmm.cli.main import main; main()\n"
    )
    for arguments in (["run", "--kernel", "good.bin"], ["doctor"], ["doctor", "--json"]):
        command = [sys.executable, "-c", program, *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert result.returncode == ExitCode.HOST_UNFIT
        assert words in result.stdout + result.stderr
        assert "Traceback" not in result.stderr


@needs_kvm
@pytest.mark.skipif(not uses_shadow_paging(kvm_module()), reason="doctor: two_dimensional_paging: EPT or NPT")
def test_in_place_is_refused_under_shadow_paging(guests: Path) -> None:
    result = dwcvmm("run", "--kernel", guests / "ports.bin", "--memory", "16M", "--strategy", "in-place")
    assert result.returncode == ExitCode.HOST_UNFIT
    assert "shadows" in result.stderr and "EPT or NPT" in result.stderr


@needs_kvm
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_end_the_run_and_the_report_is_written(guests: Path, tmp_path: Path, number: int) -> None:
    process = start_spinning(tmp_path / "r.json")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert load(tmp_path / "r.json").outcome == "interrupted"


def start_button(guests: Path, report: Path, *options: str) -> subprocess.Popen[bytes]:
    """A guest that waits for the power button, twice."""
    run = ["run", "--kernel", str(guests / "button.bin"), "--memory", "16M", "--report", str(report), *options]
    process = subprocess.Popen(
        [*COMMAND, *run], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"press\n"
    return process


@needs_kvm
@pytest.mark.parametrize("options", [("--strategy", "off"), ("--strategy", "sequential", "--no-sandbox")], ids=" ".join)
def test_sigterm_presses_the_power_button_once(guests: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    process = start_button(guests, tmp_path / "r.json", *options)
    process.send_signal(signal.SIGTERM)
    assert process.stdout and process.stdout.readline() == b"press\n", "the guest was told"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert b"the power button was pressed" in errors
    assert load(tmp_path / "r.json").outcome == "interrupted"


@needs_kvm
def test_the_power_button_by_key_and_by_sigterm(guests: Path, tmp_path: Path) -> None:
    run = ["run", "--kernel", str(guests / "button.bin"), "--memory", "16M", "--report", str(tmp_path / "r.json")]
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *run], cwd=str(ROOT), timeout=30, encoding="utf-8")
    child.expect_exact("press\r\n")
    child.send("\x01p")
    child.expect_exact("press\r\n")
    os.kill(child.pid, signal.SIGTERM)
    child.expect_exact("button: OK")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == ExitCode.OK
    assert load(tmp_path / "r.json").outcome == "poweroff"


@needs_kvm
def test_closed_stdout_ends_the_run_and_the_report_is_written(guests: Path, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    image = tmp_path / "chatter.bin"
    image.write_bytes(b"\xb0\x0a\x66\xba\xf8\x03\xee\xeb\xfd")  # newlines for ever
    run = ["run", "--kernel", str(image), "--memory", "16M", "--strategy", "off", "--report", str(tmp_path / "r.json")]
    process = subprocess.Popen([*COMMAND, *run], cwd=ROOT, stdout=write_end, stdin=subprocess.DEVNULL)
    os.close(write_end)
    assert os.read(read_end, 1) == b"\n"
    os.close(read_end)
    assert process.wait(timeout=30) == ExitCode.INTERRUPTED
    assert load(tmp_path / "r.json").outcome == "interrupted"


@needs_kvm
def test_keys_on_a_terminal(guests: Path, tmp_path: Path) -> None:
    """Raw while the guest runs, Ctrl-c goes to the guest, Ctrl-a x leaves, the terminal is as before."""
    import termios

    image = tmp_path / "wait.bin"
    image.write_bytes(b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe")
    run = ["run", "--kernel", str(image), "--memory", "16M", "--strategy", "off"]
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *run], cwd=str(ROOT), timeout=30, encoding="utf-8")
    before = termios.tcgetattr(child.child_fd)
    child.expect("Ctrl-a h shows the keys")
    child.expect("A\r\n")
    child.send("\x03")
    child.send("\x01h")
    child.expect("send Ctrl-a to the guest")
    child.send("\x01s")
    child.expect("elements")
    child.send("\x01x")
    child.expect("interrupted after")
    child.expect(pexpect.EOF)
    assert termios.tcgetattr(child.child_fd) == before
    child.close()
    assert child.exitstatus == ExitCode.INTERRUPTED


@needs_kvm
def test_input_reaches_the_serial_port(tmp_path: Path) -> None:
    """An echo guest: everything typed comes back, up to a newline; far more than the FIFO holds."""
    image = tmp_path / "echo.bin"
    # wait: in LSR; test 1; jz wait; in RBR; out THR; cmp al, 10; jne wait; out 0xf4 with 0
    image.write_bytes(
        b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03\xec\xee\x3c\x0a\x75\xed\x30\xc0\xe6\xf4\xeb\xfe"
    )
    text = "the quick brown fox jumps over the lazy dog " * 20 + "\n"
    result = dwcvmm("run", "--kernel", image, "--memory", "16M", "--strategy", "off", stdin=None, input=text)
    assert result.stdout == text
    assert result.returncode == ExitCode.OK


@needs_kvm
def test_doctor_json() -> None:
    result = dwcvmm("doctor", "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == "dwcvmm-doctor/1"
    names = {finding["name"] for finding in document["findings"]}
    assert {"kvm", "backend", "kernel_code", "single_step", "irq_window", "progress"} <= names
    assert result.returncode == (ExitCode.OK if document["fit"] else ExitCode.HOST_UNFIT)


def test_help_and_version() -> None:
    started = time.monotonic()
    assert "run" in dwcvmm("--help").stdout
    assert dwcvmm("--version").returncode == 0
    assert dwcvmm("nonsense").returncode == ExitCode.USAGE
    assert time.monotonic() - started < 60


@needs_kvm
@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_check_can_be_interrupted(guests: Path, signal_: signal.Signals, code: int) -> None:
    command = [*COMMAND, "check", "--guest", "ring3", "--elements", "100000000"]
    # whatever started the tests may ignore SIGINT, which is inherited (a shell's background job)
    default: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, **default)
    try:
        time.sleep(2)
        assert process.poll() is None
        process.send_signal(signal_)
        assert process.wait(60) == code
    finally:
        process.kill()


@needs_kvm
def test_check_reports(guests: Path, tmp_path: Path) -> None:
    result, picture = tmp_path / "check.json", tmp_path / "check.svg"
    command = ("check", "--guest", "rep", "--elements", "300", "--json", result, "--picture", picture)
    assert dwcvmm(*command).returncode == ExitCode.OK
    assert "rep, parallel: 0 slice ends" in picture.read_text() or "rep, sequential" in picture.read_text()
    found = json.loads(result.read_text())
    assert (found["schema"], found["elements"], found["unexplained"]) == ("dwcvmm-check/1", 300, 0)
    assert sum(found["by_end"].values()) == 300


@needs_kvm
def test_a_signal_just_before_the_guest_begins(guests: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from dwcvmm.machine import Machine\n"
        "real = Machine.run_async\n"
        "def late(self):\n    os.kill(os.getpid(), signal.SIGINT)\n    return real(self)\n"
        "Machine.run_async = late\n"
        "from dwcvmm.cli.main import main; main()\n"
    )
    run = ["run", "--kernel", str(guests / "ports.bin"), "--memory", "16M", "--report", str(tmp_path / "r")]
    done = subprocess.run([sys.executable, "-c", program, *run], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == ExitCode.INTERRUPTED, done.stderr
    assert load(tmp_path / "r").outcome == "interrupted"
