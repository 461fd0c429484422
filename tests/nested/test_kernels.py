"""Stock kernels boot in testbeds, on whatever machine the tests run; and a third CPU decides votes.

The guests of a machine run in one boot of it, before the first of its tests, which then look at what they have left.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from conftest import GUESTS, PYTEST_INSIDE, ROOT
from inside import DMESG, Boot
from othercore import locked

from dwcvmm.experiments.kernelruns import complaints_of
from dwcvmm.results.complaints import complaints
from dwcvmm.results.reportfile import Report, load

STRATEGIES = ("off", "sequential", "parallel")
MACHINE_DIED = 125  # the emulator ended, which says nothing about the guest in it (docs/testbeds.md)

pytestmark = [
    pytest.mark.timeout(3600),  # the first test of a machine waits for all its guests, and for the emulator to be built
    pytest.mark.skipif("DWCVMM_TESTBED" in os.environ, reason="inside a testbed already"),
    pytest.mark.skipif(
        os.geteuid() != 0 and not (shutil.which("meson") and shutil.which("ninja")),
        reason="install what scripts/testbeds/qemu/build.sh needs, or be root",
    ),
]


def in_testbed(*command: str | Path, cpus: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a command in `amd`; once more if the machine died."""
    for _ in range(2):
        result = subprocess.run(
            [ROOT / "scripts" / "testbed", "amd", "--timeout", "2700", "--", *command],
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
    with locked(GUESTS / name):
        subprocess.run([ROOT / "guest-images" / name / "build.sh"], check=True)
    return GUESTS / name


def fetched(name: str, file: str) -> Path:
    """A guest of guest-images/fetch.sh."""
    subprocess.run([ROOT / "guest-images" / "fetch.sh", name], check=True)
    return GUESTS / name / file


@dataclass(frozen=True)
class Results:
    """What the guests of a machine have left."""

    directory: Path

    def report(self, name: str) -> Report:
        """pytest shows what is printed here if the test fails: what was said of the run."""
        print((self.directory / f"{name}.err").read_text(errors="replace"))
        return load(self.directory / f"{name}.json")

    def said(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def ends(self, *names: str) -> list[tuple[str, int]]:
        """(outcome, divergences that nothing explains) of each."""
        return [(self.report(name).outcome, self.report(name).divergences.unexplained) for name in names]


def run_guests(machine: str, command: Callable[[Path], tuple[str | Path, ...]]) -> Results:
    """Let a command run guests in a machine, and leave their results in the directory that is named after that.

    Once more in another machine if nothing explains why two runs differed, and then pytest warns: see docs/testbeds.md.
    """
    directory = ROOT / "build" / f"nested-{machine}"
    for _ in range(2):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        in_testbed(*command(directory))
        unexplained = [
            f"{file.stem}: {line}"
            for file in directory.glob("*.events")
            for line in file.read_text(errors="replace").splitlines()
            if '"cause":"unexplained"' in line
        ]
        if not unexplained:
            break
        kernel = (directory / DMESG).read_text(errors="replace").splitlines()
        about_time = [line for line in kernel if re.search("tsc|clocksource", line, re.IGNORECASE)]
        warnings.warn(f"machine {machine}: " + "\n".join([*unexplained, *about_time]), stacklevel=2)
    return Results(directory)


def boot_all(machine: str, boots: list[Boot], then: str = "true") -> Results:
    """In one machine, and a command behind them."""

    def command(directory: Path) -> tuple[str, ...]:
        (directory / "boots.json").write_bytes(msgspec.json.encode(boots))
        return ("sh", "-c", f".venv/bin/python tests/nested/inside.py {directory} && {then}")

    return run_guests(machine, command)


def under(strategies: tuple[str, ...], name: str, arguments: str, until: str = "", limit_s: int = 100) -> list[Boot]:
    return [Boot(f"{name}-{each}", f"{arguments} --strategy {each}", until, limit_s) for each in strategies]


BY_ACPI = ("Using IOAPIC for interrupt routing", "Switched to clocksource acpi_pm")
COM2 = "ttyS1 at I/O 0x2f8 (irq = 3, base_baud = 115200) is a 16550A"
LINUX: dict[str, tuple[str, tuple[str, ...]]] = {  # options, and lines that it must print
    "parallel": ("--strategy parallel", BY_ACPI),
    "sites": ("--strategy sequential --tsc sites", BY_ACPI),
    "legacy": ("--strategy sequential --legacy-pc", ("ACPI: Interpreter disabled", COM2)),
    # the last 256 MiB lie from 4 GiB on
    "high": ("--strategy sequential --memory 3G", (*BY_ACPI, "[mem 0x0000000100000000-0x000000010fffffff] usable")),
    "qboot": ("--strategy sequential --bios /usr/share/qemu/qboot.rom", (*BY_ACPI, COM2)),
}
WITH_COM2 = ("legacy", "qboot")
MACH_PANICS, IPXE_STARTS = "No bootstrap code loaded with the kernel!", "iPXE initialising devices"
POWER_WAITS = "DWCVMM-WAITS"
RECORDING = ("sequential", "parallel")
OF_32_BITS = {"686": "off", "686-pae": "sequential"}


@pytest.fixture(scope="module")
def linux() -> Results:
    """Linux in many ways. The kernel with virtio devices runs as scripts/kernels runs it."""
    files, files32 = built("linux"), built("linux32")
    built("virtio")
    com2 = {way: f"--append dwc.serial --serial {ROOT}/build/nested-linux/linux-{way}.com2" for way in WITH_COM2}
    boots = [
        Boot(f"linux-{way}", f"--kernel {files}/vmlinuz --initrd {files}/initramfs.cpio {options} {com2.get(way, '')}")
        for way, (options, _) in LINUX.items()
    ]
    for name, strategy in OF_32_BITS.items():
        kernel = f"--kernel {files32}/vmlinuz-{name} --initrd {files32}/initramfs.cpio"
        boots.append(Boot(name, f"{kernel} --strategy {strategy}"))
    power = f"--kernel {GUESTS}/virtio/vmlinuz --initrd {GUESTS}/virtio/initramfs.cpio --append dwc.power"
    boots += under(STRATEGIES, "power", power, POWER_WAITS)
    saved = f"{ROOT}/build/nested-linux/saved-machine"
    quiet = f"--kernel {files}/vmlinuz --initrd {files}/initramfs.cpio --append 'quiet printk.time=0 dwc.work'"
    boots.append(Boot("saved", f"{quiet} --strategy parallel --save-to {saved} --save-at 300ms"))
    boots += [Boot(f"restored-{each}", f"{saved} --strategy {each}", command="restore") for each in STRATEGIES]
    boots += [
        Boot(f"recorded-{each}", f"{quiet} --strategy {each} --record {ROOT}/build/nested-linux/recording-{each}")
        for each in RECORDING
    ]
    virtio = f".venv/bin/python -m dwcvmm.experiments.kernelruns run {ROOT}/build/nested-linux virtio:sequential"
    replays = [
        f"{{ .venv/bin/dwcvmm replay {base}/recording-{each}; echo exit code $?; }} > {base}/replayed-{each}.txt 2>&1"
        for base in [f"{ROOT}/build/nested-linux"]
        for each in RECORDING
    ]
    return boot_all("linux", boots, then="; ".join([*replays, virtio]))


@pytest.fixture(scope="module")
def others() -> Results:
    """What is not Linux. Two of them do not end by themselves in any time worth waiting for (see their tests)."""
    xen, mach, ipxe, grub = (
        fetched("xen", "xen.gz"),
        fetched("gnumach", "gnumach.gz"),
        fetched("ipxe", "ipxe.iso"),
        built("grub"),
    )
    boots = [
        *under(STRATEGIES, "xen", f"--kernel {xen} --append 'console=com1 com1=115200,8n1 noreboot'"),
        *under(STRATEGIES, "gnumach", f"--kernel {mach} --memory 64M --rtc fixed --append console=com0", MACH_PANICS),
        *under(STRATEGIES[:2], "ipxe", f"--disk {ipxe},readonly --memory 32M", IPXE_STARTS),
        *under(STRATEGIES, "grub", f"--disk {grub / 'disk.img'},readonly --memory 32M"),
        *under(STRATEGIES, "fpenv", "--guest fpenv --memory 32M"),
        *under(STRATEGIES, "multiboot", f"--kernel {grub / 'grub.elf'} --memory 32M --tsc shown --clock-divisor 1"),
    ]
    return boot_all("others", boots)


in_linux = pytest.mark.xdist_group("amd-linux")
in_others = pytest.mark.xdist_group("amd-others")


@in_linux
@pytest.mark.parametrize("way", LINUX)
def test_linux_boots(linux: Results, way: str) -> None:
    """It finds ACPI's tables and the IO-APIC, unless it is told that there are none; also behind qboot, a firmware."""
    said = linux.said(f"linux-{way}")
    for line in ("DWCVMM-INIT-OK Linux", *LINUX[way][1]):
        assert line in said
    report = linux.report(f"linux-{way}")
    assert complaints(report) == []
    assert report.host.kvm_module == "kvm_amd"


@in_linux
@pytest.mark.parametrize("way", WITH_COM2)
def test_a_program_of_linux_writes_to_a_second_serial_port(linux: Results, way: str) -> None:
    """Its driver sends by interrupts, which come through the 8259, or through the IO-APIC."""
    assert (linux.directory / f"linux-{way}.com2").read_bytes() == b"DWCVMM-SERIAL\r\n"


@in_linux
def test_drivers_of_virtio_devices_warn_of_nothing(linux: Results) -> None:
    """They have MSIs by the default arguments. The other kernels of the table, and Linux 6.12: scripts/kernels."""
    assert complaints_of(linux.directory, "virtio", "sequential") == []


@in_linux
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sigterm_presses_the_power_button(linux: Results, strategy: str) -> None:
    """Linux reports the key to acpid, as to systemd-logind; its script ends in the kernel's own way into S5."""
    said, report = linux.said(f"power-{strategy}"), linux.report(f"power-{strategy}")
    assert said.index(POWER_WAITS) < said.index("DWCVMM-POWER-BUTTON") < said.index("reboot: Power down")
    assert (report.outcome, report.divergences.unexplained) == ("poweroff", 0)


@in_linux
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_linux_goes_on_where_it_was_saved(linux: Results, strategy: str) -> None:
    """Under any strategy it prints what is left, to its end, as does the one that was saved and went on."""
    whole, rest = linux.said("saved"), linux.said(f"restored-{strategy}")
    assert "DWCVMM-HASH forks" in rest and "Linux version" not in rest
    assert whole.endswith(rest)
    assert linux.ends("saved", f"restored-{strategy}") == [("poweroff", 0)] * 2
    assert linux.report(f"restored-{strategy}").strategy == strategy


@in_linux
@pytest.mark.parametrize("strategy", RECORDING)
def test_linux_is_replayed_as_it_was_recorded(linux: Results, strategy: str) -> None:
    """On one VM, with each element's registers and all memory as they were, to the end. Loops end elements there."""
    report = linux.report(f"recorded-{strategy}")
    assert (report.outcome, report.divergences.unexplained) == ("poweroff", 0)
    said = (linux.directory / f"replayed-{strategy}.txt").read_text()
    assert said.endswith("every element agrees with the recording\nexit code 0\n")
    assert f"replayed     {report.elements.committed} elements" in said


@in_linux
@pytest.mark.parametrize(("name", "strategy"), OF_32_BITS.items())
def test_linux_of_32_bits_boots(linux: Results, name: str, strategy: str) -> None:
    """With PAE and without, from Debian's i386 packages; all strategies: scripts/kernels."""
    assert " i686 GNU/Linux" in linux.said(name)
    report = linux.report(name)
    assert (report.outcome, report.strategy) == ("poweroff", strategy)
    assert strategy == "off" or complaints(report) == []


def names(guest: str, strategies: tuple[str, ...] = STRATEGIES) -> list[str]:
    return [f"{guest}-{strategy}" for strategy in strategies]


@in_others
def test_xen_starts_and_misses_its_dom0(others: Results) -> None:
    """A multiboot2 kernel in a gzip file, under each strategy."""
    for name in names("xen"):
        assert "Bootloader: dwcvmm" in others.said(name)
        assert "dom0 kernel not specified" in others.said(name)
    assert others.ends(*names("xen")) == [("halt", 0)] * 3


@in_others
def test_gnu_mach_starts_and_misses_its_servers(others: Results) -> None:
    """A 64-bit microkernel by multiboot 1. Behind its panic it counts for long before it reboots, and is stopped."""
    for name in names("gnumach"):
        assert "RTC time is 2023-11-14 22:13:20" in others.said(name)
        assert MACH_PANICS in others.said(name)
    ends = others.ends(*names("gnumach"))
    assert {outcome for outcome, _ in ends} <= {"interrupted", "reboot"}
    assert [unexplained for _, unexplained in ends] == [0] * 3


@in_others
def test_an_iso_image_boots(others: Results) -> None:
    """SeaBIOS, ISOLINUX by the hybrid image's boot record, and iPXE, which is not waited for: it takes random numbers
    from the clock's periodic interrupt, a thousand times, each in a loop without an exit.
    """
    for name in names("ipxe", STRATEGIES[:2]):
        assert "ISOLINUX 6" in others.said(name)
        assert IPXE_STARTS in others.said(name)
    assert others.ends(*names("ipxe", STRATEGIES[:2])) == [("interrupted", 0)] * 2


BEHIND_THE_MENU = ("GNU GRUB", "words of the module\n", "RSDT FACP APIC MCFG\n", "grub: OK\n")


@in_others
def test_grub_boots_from_a_disk(others: Results) -> None:
    """SeaBIOS, GRUB from the disk's first sectors, its menu on the serial port, and a multiboot 2 kernel behind it."""
    for name in names("grub"):
        for text in ("SeaBIOS", *BEHIND_THE_MENU):
            assert others.said(name).count(text) == 1, (name, text)
    assert others.ends(*names("grub")) == [("poweroff", 0)] * 3


@in_others
def test_grub_is_a_multiboot_kernel(others: Results) -> None:
    """Without a BIOS it has no clock but the TSC, which stands still here within an element."""
    for name in names("multiboot"):
        for text in BEHIND_THE_MENU:
            assert others.said(name).count(text) == 1, (name, text)
    assert others.ends(*names("multiboot")) == [("poweroff", 0)] * 3


@in_others
def test_x87_pointers_are_those_of_the_guest(others: Results) -> None:
    for name in names("fpenv"):
        assert others.said(name) == (ROOT / "guest-images" / "fpenv" / "token").read_text()
    assert others.ends(*names("fpenv")) == [("poweroff", 0)] * 3


@pytest.mark.usefixtures("guests")
def test_votes_with_a_third_cpu() -> None:
    result = in_testbed(*PYTEST_INSIDE, "-p", "no:cacheprovider", "tests/faults/test_voting.py", cpus=3)
    # a run that skips everything is not one that passes
    assert " passed" in result.stdout and "skipped" not in result.stdout, result.stdout
