"""Doctor's findings about a host. Their names are stable: scripts and tests use them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dwcvmm.core.enums import Cap, UserTrap
from dwcvmm.element.hostprobe import SLOW_EXIT_NS, Abilities, probe
from dwcvmm.element.replicas import REQUIRED
from dwcvmm.errors import HostError
from dwcvmm.experiments.perfsettings import perf_troubles
from dwcvmm.kvm.system import System
from dwcvmm.results.doctorfile import Finding, Level

NATIVE_NS = 50


def examine() -> list[Finding]:
    """All findings. Stops early if KVM itself is missing."""
    try:
        system = System()
    except HostError as error:
        message, _, remedy = str(error).partition("; ")
        return [Finding("kvm", Level.FAIL, message, remedy)]
    try:
        return list(_with_kvm(system))
    finally:
        system.close()


def _with_kvm(system: System) -> Iterator[Finding]:
    yield Finding("kvm", Level.OK, "/dev/kvm opens")
    missing = {cap: remedy for cap, remedy in REQUIRED.items() if not system.check_extension(cap)}
    for cap, remedy in missing.items():
        yield Finding(f"kvm_cap_{cap.name.lower()}", Level.FAIL, "missing", f"use {remedy}")
    if missing:
        return
    try:
        kind = probe(system)
    except HostError as error:
        yield Finding("probe", Level.FAIL, f"a guest of two instructions does not run: {error}")
        return
    yield Finding("backend", Level.OK, kind.module)
    yield _choice(
        "two_dimensional_paging",
        not kind.shadow_paging,
        "EPT or NPT",
        "shadow paging: each rollback deletes and adds a memory slot, and strategy in-place is refused",
    )
    slow = kind.exit_ns > SLOW_EXIT_NS
    yield Finding(
        "exit_cost",
        Level.NOTE if slow else Level.OK,
        f"{kind.exit_ns} ns for a port output, seen from Python",
        f"the guest clock is slowed down {kind.clock_divisor} times" if slow else "",
    )
    abilities = Abilities(system)
    ns = abilities.kernel_instruction_ns
    yield _choice(
        "kernel_code",
        ns < NATIVE_NS,
        f"{ns:.1f} ns an instruction in ring 0",
        f"{ns:.0f} ns an instruction in ring 0: KVM emulates kernel code, so whole systems will not run",
    )
    yield _choice(
        "single_step",
        abilities.single_step,
        "in ring 0",
        "not in ring 0: no time site can be learned, and elements have natural ends only",
    )
    yield _choice(
        "single_step_user",
        abilities.single_step_user,
        "in ring 3",
        "not in ring 3: an element that computes there without an exit cannot be cut",
    )
    yield _choice(
        "breakpoints",
        abilities.breakpoint and abilities.breakpoint_user,
        "debug registers stop the guest at an instruction, for --gdb",
        f"debug registers do not stop the guest in ring {'3' if abilities.breakpoint else '0'}"
        f"{'' if abilities.breakpoint or abilities.breakpoint_user else ' and 3'}: docs/gdb.md says what is done",
    )
    yield _choice(
        "watchpoints",
        abilities.watchpoint,
        "debug registers stop the guest behind a write to memory, for --gdb",
        "debug registers do not stop the guest at accesses to memory: --gdb finds writes by single steps",
    )
    yield _choice(
        "irq_window",
        kind.exact_windows,
        "an interrupt window exits at the first instruction at which an interrupt can be taken",
        "inexact: a due interrupt waits for a natural end, or for single steps",
    )
    yield _choice(
        "tsc_scaling",
        bool(system.check_extension(Cap.TSC_CONTROL)),
        "present",
        "absent: the TSC cannot be frozen, so RDTSC is replaced by traps that read the guest clock; under off the "
        "guest reads the host's TSC, and one that keeps time by it needs --clock host",
    )
    yield _choice(
        "time_trap_user",
        kind.user_trap is not UserTrap.NONE,
        f"{kind.user_trap.name} in ring 3 gives an exit",
        "no trap for RDTSC in ring 3: without a frozen TSC it is stepped over if single_step_user is ok",
    )
    progress = abilities.progress
    yield _choice(
        "progress",
        bool(progress),
        progress.reason,
        f"no counter: {progress.reason} ({progress.remedy}); elements have natural ends, and one that keeps an "
        f"interrupt waiting is discarded and ended by a few single steps of {abilities.step_ns / 1000:.0f} us",
    )
    if progress:
        for trouble, remedy in perf_troubles():
            yield Finding("perf_settings", Level.NOTE, trouble, remedy)
    cpus = len(os.sched_getaffinity(0))
    yield _choice("cpus", cpus >= 2, f"{cpus}", "one: the strategy parallel has nowhere to run e2")


def _choice(name: str, good: bool, detail: str, otherwise: str) -> Finding:
    return Finding(name, Level.OK if good else Level.NOTE, detail if good else otherwise)


def main(arguments: list[str]) -> int:
    """`python -m dwcvmm.experiments.hostfindings FILE NAME`: exit code 0 if NAME is ok in doctor's JSON."""
    document = msgspec.json.decode(Path(arguments[0]).read_bytes())
    levels = {finding["name"]: finding["level"] for finding in document["findings"]}
    return 0 if document["fit"] and levels.get(arguments[1]) == Level.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
