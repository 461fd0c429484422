"""The pieces of scripts/paper: commands, and the tables of the documents that are made of what they write."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dwcvmm.experiments import papertables as tables
from dwcvmm.experiments.papertables import Figures, Table

LOCAL = "local"
OUT = Path("build/paper")  # in a checkout; testbeds share it
LINUX = "--kernel build/guests/linux/vmlinuz --initrd build/guests/linux/initramfs.cpio"
TOKEN = '--append quiet --token "DWCVMM-INIT-OK Linux"'
TINY = " ".join(
    f"--guest {guest}" for guest in ("ports", "ring3", "fpu", "paging", "paging3", "smc", "rep", "mmio", "untouched")
)
NOISE = "skid=random:128,interrupt=1,fault=1,entry=1"


@dataclass(frozen=True)
class Piece:
    """`host`: whose figures these are: this host's, or a testbed's, which the command starts. `command`: for the shell,
    in the root of a checkout.
    """

    name: str
    host: str
    command: str
    collect: Callable[[Path], Figures]
    table: Callable[[Figures], Table]

    @property
    def out(self) -> Path:
        """The directory for what its command writes."""
        return OUT / self.name


def _bench(name: str, options: str, table: Callable[[Figures], Table], host: str = LOCAL) -> Piece:
    testbed = "" if host == LOCAL else f"scripts/testbed {host} --timeout 7200 -- .venv/bin/"
    return Piece(
        name, host, f"{testbed}dwcvmm bench {options} --json {OUT / name}/result.json", tables.collect_json, table
    )


def _campaign(name: str, options: str, host: str = LOCAL) -> Piece:
    place = OUT / name
    command = (
        f"dwcvmm campaign new {place}/campaign {options} && dwcvmm campaign run {place}/campaign --jobs 1 && "
        f"dwcvmm campaign report {place}/campaign --json {place}/result.json"
    )
    if host != LOCAL:
        command = f"scripts/testbed {host} --timeout 7200 -- sh -c {shlex.quote(command)}"
    return Piece(name, host, command, tables.collect_json, tables.campaign_table)


PIECES = (
    _bench("exits", "exits --rounds 7", tables.exits_table),
    _bench("elements", "elements --pages 0,10,50 --rounds 9", tables.elements_table),
    _bench("memory", "memory --sizes 64M,1G --rounds 3", tables.memory_table),
    _campaign("faults", f"{TINY} --faults 2000 --point start --point end --seed 20261129"),
    Piece(
        "def-use",
        LOCAL,
        "for guest in ports paging smc rep mmio untouched ring3; do "
        f"dwcvmm campaign new {OUT}/def-use/$guest --guest $guest "
        "--def-use 16 --faults 9604 --golden-runs 1 --seed 20261130; done",
        tables.collect_def_use,
        tables.def_use_table,
    ),
    _campaign("def-use-campaign", "--guest paging --def-use 1 --faults 1000 --golden-runs 1 --seed 20261130"),
    _bench("boot", f"boot {LINUX} {TOKEN} --rounds 3", tables.runs_table, "amd"),
    _bench(
        "boot-in-place",
        f"boot {LINUX} {TOKEN} --rounds 2 --strategies off,sequential,parallel,in-place,in-place+dirty,in-place+all",
        tables.runs_table,
        "amd",
    ),
    _bench("workload", "workload --rounds 1 --strategies off,sequential", tables.runs_table, "amd"),
    _campaign(
        "faults-linux",
        f'{LINUX} --append dwc.work --expect "^DWCVMM-(HASH|INIT)" '
        "--faults 5000 --per-run 250 --golden-runs 2 --seed 44",
        "amd",
    ),
    Piece(
        "compare-qemu",
        "amd",
        f"scripts/compare-qemu 4 >{OUT}/compare-qemu/printed",
        tables.collect_qemu,
        tables.qemu_table,
    ),
    Piece("networks", "amd", "scripts/netbench 2", tables.collect_netbench, tables.netbench_table),
    Piece(
        "compile",
        "amd",
        # in pieces of six minutes: those under protection are saved and restored on the way
        "for piece in 1 2 3 4 5 6; do scripts/compile --minutes 6 --of init,kernel/sched off sequential parallel; "
        "scripts/compile --gcc --minutes 6 --of libcpp off sequential; done",
        tables.collect_compile,
        tables.compile_table,
    ),
    Piece("benchmarks", "amd", "scripts/benchmarks", tables.collect_benchmarks, tables.benchmarks_table),
    Piece(
        "slices",
        "intel-pmu",
        "; ".join(
            f"scripts/testbed intel-pmu --timeout 7200 --pmu {pmu} -- .venv/bin/dwcvmm check --guest compute "
            f"--slice 50us --elements 100000 --strategy sequential --json {OUT}/slices/{pmu}.json"
            for pmu in ("exact", NOISE)
        ),
        tables.collect_checks,
        tables.checks_table,
    ),
    Piece(
        "pmu-boots", "intel-pmu", "scripts/pmu-boots --boot-only --seeds 3", tables.collect_boots, tables.boots_table
    ),
    Piece("soak", "all", "scripts/soak --elements 1000000 --jobs 2", tables.collect_soak, tables.soak_table),
)
BY_NAME = {piece.name: piece for piece in PIECES}
