"""Settings of the host's kernel that keep a progress counter from working well, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dwcvmm.element.config import EngineConfig

NS_PER_S = 1_000_000_000
OVERFLOWS_A_SLICE = 3  # the end of the slice, and the moves of its alignment


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def perf_troubles(root: Path = Path("/"), slice_ns: int = EngineConfig.slice_ns) -> Iterator[tuple[str, str]]:
    """Returns (what is wrong, what to do) for the host whose files are below `root`.

    Sources: kernel/irq_work.c (PREEMPT_RT), kernel/events/core.c (__perf_event_account_interrupt: throttling), kernel
    Documentation/admin-guide/sysctl/kernel.rst, arch/x86/kvm/pmu.c (enable_mediated_pmu).
    """
    if _read(root / "sys/kernel/realtime") == "1":
        yield "a PREEMPT_RT kernel: overflow signals come from a thread, late", "use a kernel without PREEMPT_RT"
    rate = _read(root / "proc/sys/kernel/perf_event_max_sample_rate")
    needed = OVERFLOWS_A_SLICE * NS_PER_S // slice_ns
    if rate.isdigit() and int(rate) < needed:
        yield (
            f"counters are throttled at {rate} overflows a second, slices of {slice_ns // 1000} us take up to {needed}",
            f"sysctl kernel.perf_cpu_time_max_percent=0 kernel.perf_event_max_sample_rate={needed}",
        )
    percent = _read(root / "proc/sys/kernel/perf_cpu_time_max_percent")
    if percent.isdigit() and 0 < int(percent) < 100:
        yield "the kernel may lower the rate of overflows by itself", "sysctl kernel.perf_cpu_time_max_percent=0"
    if _read(root / "proc/sys/kernel/nmi_watchdog") == "1":
        yield "the NMI watchdog keeps a counter", "sysctl kernel.nmi_watchdog=0"
    for module in ("kvm", "kvm_intel", "kvm_amd"):
        if _read(root / "sys/module" / module / "parameters/enable_mediated_pmu") == "Y":
            yield (
                "VMs with a mediated vPMU take the PMU while they run (EOPNOTSUPP, EBUSY)",
                f"load {module} with enable_mediated_pmu=0, or stop them",
            )
