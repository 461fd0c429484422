"""`python -m dwcvmm.experiments.kernelruns run|table DIRECTORY NAME:WAY ...`: what scripts/kernels runs.

A run leaves NAME-WAY.json, .log (its console), .ndjson and .err. It is repeated only if there is no report.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dwcvmm.errors import DwcVmmError
from dwcvmm.experiments.slicetable import causes
from dwcvmm.pc.result import Outcome
from dwcvmm.results.reportfile import Report, load

GUESTS = Path("build/guests")
WAYS = {
    "off": ("--strategy", "off"),
    "sequential": ("--strategy", "sequential"),
    "sites": ("--strategy", "sequential", "--tsc", "sites"),
    "parallel": ("--strategy", "parallel"),
}
TIMEOUT_S = 100  # by the clock of the testbed, which can be slower than outside (docs/testbeds.md)
LOOK_EVERY_S = 0.2
# what Linux and memtest86+ print if something is wrong
TROUBLE = re.compile(
    r"WARNING:|BUG:|Oops|Call Trace|Kernel panic|self-detected stall|hung_task|Tainted: |\[Firmware (?:Bug|Warn)\]"
    r"|clocksource: .*(?:unstable|skew)|APIC error|spurious|(?:irq|IRQ) \d+: nobody cared|MP-BIOS bug"
    r"|timer doesn't work|Errors: +[1-9]"
)


@dataclass(frozen=True)
class Kernel:
    """How a kernel is run, and what it must print. Then it ends by itself, or it is stopped."""

    arguments: tuple[str, ...]
    tokens: tuple[str, ...]  # texts that it must print; the last one means success
    version: str  # a pattern, whose group 1 is the version
    outcome: Outcome = Outcome.INTERRUPTED
    after_s: float = 0.0  # seconds after the last token, when it is stopped


def _linux(kernel: str, initrd: str, *more: str, tokens: tuple[str, ...] = ()) -> Kernel:
    files = ("--kernel", str(GUESTS / kernel), "--initrd", str(GUESTS / initrd))
    return Kernel((*files, *more), (*tokens, "DWCVMM-INIT-OK"), r"Linux version (\S+)", Outcome.POWEROFF)


XEN_CONSOLE = "console=com1 com1=115200,8n1 noreboot"
MEMTEST_CONSOLE = "console=ttyS0,115200 nopause"
KERNELS = {
    **{
        name: _linux(f"{name}/vmlinuz", "linux/initramfs.cpio")
        for name in ("cloud", "full", "rt", "backports", "trixie")
    },
    **{name: _linux(f"linux32/vmlinuz-{name}", "linux32/initramfs.cpio") for name in ("686", "686-pae")},
    "virtio": _linux(
        *("virtio/vmlinuz", "virtio/initramfs.cpio", "--disk", f"{GUESTS}/virtio/disk.img,snapshot"),
        *("--rng", "--virtio-console"),
        tokens=tuple(f"DWCVMM-{word}" for word in ("DISK words", "RANDOM 32", "HVC", "MSI 7", "TAINTED 0")),
    ),
    "xen": Kernel(
        ("--kernel", str(GUESTS / "xen/xen.gz"), "--append", XEN_CONSOLE),
        ("Bootloader: dwcvmm", "dom0 kernel not specified"),
        r"Xen version (\S+)",
        Outcome.HALT,
    ),
    "gnumach-i386": Kernel(
        ("--kernel", str(GUESTS / "gnumach-i386/gnumach.gz"), "--memory", "64M", "--append", "console=com0"),
        ("No bootstrap code loaded with the kernel!",),
        r"GNU Mach (\S+)",
    ),
    "installer": replace(
        _linux("installer/vmlinuz", "installer/initrd.gz", "--memory", "1G", "--append", "DEBIAN_FRONTEND=text"),
        tokens=("Select a language",),
        outcome=Outcome.INTERRUPTED,
    ),
    "memtest-ia32": Kernel(
        ("--kernel", str(GUESTS / "memtest-ia32/memtest.bin"), "--memory", "16M", "--append", MEMTEST_CONSOLE),
        ("<F1>",),
        r"Memtest86\+ v?(\d\S+)",
        after_s=5,
    ),
}


def run(directory: Path, name: str, way: str) -> None:
    """Run a kernel on this machine's KVM. Does nothing if there is a report already."""
    kernel, base = KERNELS[name], directory / f"{name}-{way}"
    report, log = base.with_suffix(".json"), base.with_suffix(".log")
    if report.exists() and report.stat().st_size:
        return
    command = [str(Path(sys.executable).with_name("dwcvmm")), "run", *kernel.arguments, *WAYS[way], "--rtc", "fixed"]
    command += ["--timeout", f"{TIMEOUT_S}s", "--report", str(report), "--console", str(log)]
    command += ["--events", str(base.with_suffix(".ndjson")), "--quiet"]
    log.unlink(missing_ok=True)
    with base.with_suffix(".err").open("wb") as errors:
        guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
        if kernel.outcome is Outcome.INTERRUPTED:
            while guest.poll() is None and kernel.tokens[-1] not in printed(log):
                time.sleep(LOOK_EVERY_S)
            time.sleep(kernel.after_s)
            guest.send_signal(signal.SIGINT)  # SIGTERM would press the power button
        guest.wait()


def printed(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def complaints(kernel: Kernel, report: Report, text: str) -> list[str]:
    """What is wrong with a run, in words; empty if nothing is."""
    wrong = [f"did not say {token!r}" for token in kernel.tokens if token not in text]
    if report.outcome != kernel.outcome:
        wrong.append(f"ended by {report.outcome}")
    if report.strategy != "off" and report.elements.unprotected:
        wrong.append(f"{report.elements.unprotected} elements were not protected")
    if report.divergences.unexplained:
        wrong.append(f"{report.divergences.unexplained} divergences are unexplained")
    return wrong + [f"says: {line.strip()}" for line in text.splitlines() if TROUBLE.search(line)]


def complaints_of(directory: Path, name: str, way: str) -> list[str]:
    """The same, from the files that a run has left. Raises ConfigError if there is no report."""
    base = directory / f"{name}-{way}"
    return complaints(KERNELS[name], load(base.with_suffix(".json")), printed(base.with_suffix(".log")))


def cell(report: Report) -> str:
    seconds = f"{report.wall_s:.2f} s"
    if report.strategy == "off":
        return f"{report.elements.committed:,} elements, {seconds}"
    unexplained = report.divergences.unexplained
    return f"{report.elements.committed:,} elements, {causes(report.divergences)}, {unexplained} unexplained, {seconds}"


def table(directory: Path, runs: list[tuple[str, str]]) -> int:
    """Print the table: a row for each kernel, a column for each way, complaints below. Returns how many runs failed."""
    ways = [way for way in WAYS if any(way == other for _, other in runs)]
    print(f"| kernel | version | {' | '.join(ways)} |", "|---" * (2 + len(ways)) + "|", sep="\n")
    wrong = []
    for name in dict.fromkeys(name for name, _ in runs):
        cells, version = [], ""
        for way in ways:
            cells.append("-")
            if (name, way) not in runs:
                continue
            try:
                wrong += [f"{name} {way}: {what}" for what in complaints_of(directory, name, way)]
            except DwcVmmError as error:
                wrong.append(str(error))
                continue
            cells[-1] = cell(load(directory / f"{name}-{way}.json"))
            found = re.search(KERNELS[name].version, printed(directory / f"{name}-{way}.log"))
            version = found[1] if found else version
        print(f"| {name} | {version} | {' | '.join(cells)} |")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return len(wrong)


def main(arguments: list[str]) -> int:
    what, directory = arguments[0], Path(arguments[1])
    runs = [(name, way) for name, _, way in (argument.partition(":") for argument in arguments[2:])]
    if what == "table":
        return 1 if table(directory, runs) else 0
    for name, way in runs:
        print(name, way, flush=True)
        run(directory, name, way)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
