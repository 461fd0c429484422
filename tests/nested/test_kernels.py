"""Stock kernels boot in testbeds, on whatever machine the tests run; and a third CPU decides votes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import GUESTS, ROOT

from dwcvmm.errors import ExitCode
from dwcvmm.experiments.kernelruns import complaints_of
from dwcvmm.results.complaints import complaints
from dwcvmm.results.reportfile import Report, load

STRATEGIES = ("off", "sequential", "parallel")
CLOCKS_SLOWER = {"amd": 8, "intel": 1}  # testbeds/qemu/clock.patch; a bochs has no clock of the host
MACHINE_DIED = 125  # the emulator ended, which says nothing about the guest in it (docs/testbeds.md)

pytestmark = [
    pytest.mark.timeout(1200),  # the first start builds the emulator
    pytest.mark.skipif("DWCVMM_TESTBED" in os.environ, reason="inside a testbed already"),
    pytest.mark.skipif(
        os.geteuid() != 0 and not (shutil.which("meson") and shutil.which("ninja")),
        reason="install what scripts/testbeds/qemu/build.sh needs, or be root",
    ),
]


def in_testbed(*command: str | Path, kind: str = "amd", cpus: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a command there; once more if the machine died. CPUs: of `amd`."""
    for _ in range(2):
        result = subprocess.run(
            [ROOT / "scripts" / "testbed", kind, "--timeout", "800", "--", *command],
            env=os.environ | {"DWCVMM_TESTBED_CPUS": str(cpus)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if result.returncode != MACHINE_DIED:
            break
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def built(name: str) -> Path:
    """Where guest-images/NAME/build.sh has left its guest."""
    subprocess.run([ROOT / "guest-images" / name / "build.sh"], check=True)
    return GUESTS / name


BY_ACPI = ("Using IOAPIC for interrupt routing", "Switched to clocksource acpi_pm")


@pytest.mark.parametrize(
    ("option", "strategy", "lines"),
    [
        ((), "parallel", BY_ACPI),
        (("--tsc", "sites"), "sequential", BY_ACPI),
        (("--legacy-pc",), "sequential", ("ACPI: Interpreter disabled",)),
        (("--bios", "/usr/share/qemu/qboot.rom"), "sequential", BY_ACPI),
    ],
)
def test_linux_boots(option: tuple[str, ...], strategy: str, lines: tuple[str, ...]) -> None:
    """It finds ACPI's tables and the IO-APIC, unless it is told that there are none; also behind qboot, a firmware."""
    report = ROOT / "build" / "nested-linux.json"
    report.unlink(missing_ok=True)
    linux = built("linux")
    result = in_testbed(
        *(".venv/bin/dwcvmm", "run", "--kernel", linux / "vmlinuz", "--initrd", linux / "initramfs.cpio", *option),
        *("--strategy", strategy, "--report", report, "--timeout", "600s"),
    )
    for line in ("DWCVMM-INIT-OK Linux", *lines):
        assert line in result.stdout
    assert complaints(load(report)) == []
    assert load(report).host.kvm_module == "kvm_amd"


def test_drivers_of_virtio_devices_warn_of_nothing() -> None:
    """They have MSIs by the default arguments. The other kernels of the table, and Linux 6.12: scripts/kernels."""
    built("virtio")
    shutil.rmtree(results := ROOT / "build" / "nested-kernels", ignore_errors=True)
    results.mkdir()
    in_testbed(".venv/bin/python", "-m", "dwcvmm.experiments.kernelruns", "run", results, "virtio:sequential")
    assert complaints_of(results, "virtio", "sequential") == []


def test_linux_of_32_bits_boots() -> None:
    """With PAE and without, from Debian's i386 packages; all strategies: scripts/kernels."""
    reports = [ROOT / "build" / "nested-686.json", ROOT / "build" / "nested-686-pae.json"]
    linux, lines = built("linux32"), ["set -e"]
    for report, kind, strategy in zip(reports, ("686", "686-pae"), ("off", "sequential"), strict=True):
        report.unlink(missing_ok=True)
        files = f"--kernel {linux}/vmlinuz-{kind} --initrd {linux}/initramfs.cpio"
        lines.append(f".venv/bin/dwcvmm run {files} --strategy {strategy} --report {report} --timeout 80s")
    result = in_testbed("sh", "-c", "\n".join(lines))
    assert result.stdout.count(" i686 GNU/Linux") == len(reports)
    assert load(reports[0]).outcome == "poweroff"
    assert complaints(load(reports[1])) == []


def fetched(name: str, file: str) -> Path:
    """A guest of guest-images/fetch.sh."""
    subprocess.run([ROOT / "guest-images" / "fetch.sh", name], check=True)
    return GUESTS / name / file


def under_each_strategy(
    name: str, arguments: str, *, seconds: int = 260, kind: str = "amd", strategies: tuple[str, ...] = STRATEGIES
) -> tuple[str, list[Report]]:
    """All that one machine ran, each for so many seconds outside at most: consoles, and the reports in that order."""
    reports = [ROOT / "build" / f"nested-{name}-{strategy}.json" for strategy in strategies]
    lines, limit = [], seconds // CLOCKS_SLOWER[kind]
    for strategy, report in zip(strategies, reports, strict=True):
        report.unlink(missing_ok=True)
        command = f".venv/bin/dwcvmm run {arguments} --strategy {strategy} --report {report} --timeout {limit}s"
        # a kernel that has nothing to do halts for good, which is a failure to the command
        ends = f"{int(ExitCode.TIMEOUT)} | {int(ExitCode.GUEST_FAILED)}"
        lines.append(f"{command} || case $? in {ends}) ;; *) exit ;; esac")
    result = in_testbed("sh", "-c", "\n".join(lines), kind=kind)
    return result.stdout, [load(report) for report in reports]


def test_xen_starts_and_misses_its_dom0() -> None:
    """A multiboot2 kernel in a gzip file, under each strategy."""
    xen = fetched("xen", "xen.gz")
    said, reports = under_each_strategy("xen", f"--kernel {xen} --append 'console=com1 com1=115200,8n1 noreboot'")
    assert said.count("Bootloader: dwcvmm") == len(STRATEGIES)
    assert said.count("dom0 kernel not specified") == len(STRATEGIES)
    assert [(found.outcome, found.divergences.unexplained) for found in reports] == [("halt", 0)] * len(STRATEGIES)


def test_gnu_mach_starts_and_misses_its_servers() -> None:
    """A 64-bit microkernel by multiboot 1. Behind its panic it counts for long, which it ends or the time limit."""
    mach = fetched("gnumach", "gnumach.gz")
    arguments = f"--kernel {mach} --memory 64M --rtc fixed --append console=com0"
    said, reports = under_each_strategy("gnumach", arguments, seconds=30)
    assert said.count("RTC time is 2023-11-14 22:13:20") == len(STRATEGIES)
    assert said.count("No bootstrap code loaded with the kernel!") == len(STRATEGIES)
    assert {found.outcome for found in reports} <= {"timeout", "reboot"}
    assert [found.divergences.unexplained for found in reports] == [0] * len(STRATEGIES)


def test_an_iso_image_boots() -> None:
    """SeaBIOS, ISOLINUX by the hybrid image's boot record, and iPXE, which is not waited for: it takes random numbers
    from the clock's periodic interrupt, a thousand times, each in a loop without an exit.
    """
    arguments = f"--disk {fetched('ipxe', 'ipxe.iso')},readonly --memory 32M"
    said, reports = under_each_strategy("ipxe", arguments, seconds=64, strategies=STRATEGIES[:2])
    for text in ("ISOLINUX 6", "iPXE initialising devices"):
        assert said.count(text) == len(reports), text
    assert {found.outcome for found in reports} <= {"timeout", "reboot"}
    assert [found.divergences.unexplained for found in reports] == [0] * len(reports)


BEHIND_THE_MENU = ("GNU GRUB", "words of the module\n", "RSDT FACP APIC MCFG\n", "grub: OK\n")


def test_grub_boots_from_a_disk() -> None:
    """SeaBIOS, GRUB from the disk's first sectors, its menu on the serial port, and a multiboot 2 kernel behind it."""
    said, reports = under_each_strategy("grub-disk", f"--disk {built('grub') / 'disk.img'},readonly --memory 32M")
    for text in ("SeaBIOS", *BEHIND_THE_MENU):
        assert said.count(text) == len(STRATEGIES), text
    assert [(found.outcome, found.divergences.unexplained) for found in reports] == [("poweroff", 0)] * len(STRATEGIES)


def test_grub_is_a_multiboot_kernel() -> None:
    """Without a BIOS it has no clock but the TSC, and runs where that stands still (one CPU: parallel is slow)."""
    arguments = f"--kernel {built('grub') / 'grub.elf'} --memory 32M --tsc shown --clock-divisor 1"
    said, reports = under_each_strategy("grub", arguments, kind="intel", strategies=STRATEGIES[:2])
    for text in BEHIND_THE_MENU:
        assert said.count(text) == len(reports), text
    assert [(found.outcome, found.divergences.unexplained) for found in reports] == [("poweroff", 0)] * 2


@pytest.mark.usefixtures("guests")
def test_votes_with_a_third_cpu() -> None:
    result = in_testbed(
        *(".venv/bin/python", "-m", "pytest", "-q", "-rs", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"),
        "tests/faults/test_voting.py",
        cpus=3,
    )
    # a run that skips everything is not one that passes
    assert " passed" in result.stdout and "skipped" not in result.stdout, result.stdout
