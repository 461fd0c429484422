"""Tables of the documents, made of what benches, campaigns and scripts have written (scripts/paper).

`collect_*` takes the figures of a piece from the files that its command has left in a directory, without what no table
needs; `*_table` makes the table of them. Both keep to JSON, as figures are kept in docs/results/.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dwcvmm.results.benchfile import OFF, ElementsBench, ExitsBench, MemoryBench, RunsBench
from dwcvmm.results.checkfile import CheckResult
from dwcvmm.results.figures import counted, figure, median, size, with_bounds
from dwcvmm.results.rates import Spread, spread
from dwcvmm.results.reportfile import load

Figures = Any  # JSON
SOAK = Path("build/soak")
PMU_BOOTS = Path("build/pmu-boots/boot")
NETBENCH = Path("build/netbench.json")
BENCHMARKS = Path("build/benchmarks")
COMPILE = Path("build/compile")
STRESSOR = "stress-ng "  # their names begin so
PROTECTED = ("sequential", "parallel")
REGISTERS = 16  # general ones
RECOVERED, SILENT = "detected and recovered", "silent corruption"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        return "\n".join([_line(self.columns), "|" + "---|" * len(self.columns), *map(_line, self.rows)])


def _line(cells: Iterable[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def percent(value: Spread | None) -> str:
    if value is None:
        return ""
    bounds = "" if value.min == value.max else f" ({value.min:.1f}, {value.max:.1f})"
    return f"{value.median:.1f} %{bounds}"


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def collect_json(out: Path) -> Figures:
    """The result of a bench, without the reports of all its runs."""
    found = _read(out / "result.json")
    return {name: value for name, value in found.items() if name not in ("runs", "golden", "failures")}


def _as(figures: Figures, kind: type[Any]) -> Any:
    return msgspec.convert({**figures, "runs": []} if kind is RunsBench else figures, kind)


def exits_table(figures: Figures) -> Table:
    bench: ExitsBench = _as(figures, ExitsBench)
    strategies = list(dict.fromkeys(row.strategy for row in bench.rows))
    cells = {
        (row.access, row.strategy): figure(row.us_an_exit.median)
        + (f", {row.over_off.median:.2f}" if row.over_off else "")
        for row in bench.rows
    }
    accesses = dict.fromkeys(row.access for row in bench.rows)
    rows = [[access, *(cells.get((access, strategy), "") for strategy in strategies)] for access in accesses]
    return Table(["access", *strategies], rows)


def elements_table(figures: Figures) -> Table:
    bench: ElementsBench = _as(figures, ElementsBench)
    strategies = list(dict.fromkeys(row.strategy for row in bench.rows))
    pages: dict[int, dict[str, list[str]]] = {}
    for row in bench.rows:
        each = row.compare_commit_us_per_page
        pages.setdefault(row.dirty_pages, {})[row.strategy] = [
            percent(Spread(row.penalty_percent, row.penalty_min, row.penalty_max)),
            "" if each is None else f"{each:.2f} us",
        ]
    columns = [title for strategy in strategies for title in (strategy, f"{strategy}, a page")]
    rows = [
        [str(number), *(cell for strategy in strategies for cell in of.get(strategy, ["", ""]))]
        for number, of in sorted(pages.items())
    ]
    return Table(["dirty pages", *columns], rows)


def memory_table(figures: Figures) -> Table:
    bench: MemoryBench = _as(figures, MemoryBench)
    rows = [
        [
            row.strategy, size(row.memory_bytes), with_bounds(row.start_s),
            size(row.resident_bytes.median) if row.resident_bytes else "-",
            row.reason or with_bounds(row.us_a_turn),
        ]
        for row in bench.rows
    ]  # fmt: skip
    return Table(["strategy", "RAM", "start, s (min, max)", "resident", "us a turn (min, max)"], rows)


def runs_table(figures: Figures) -> Table:
    """Of `bench boot` and `bench workload`."""
    bench: RunsBench = _as(figures, RunsBench)
    phases = [
        name
        for name in dict.fromkeys(name for row in bench.rows for name in row.phases_us)
        if any(row.phases_us[name].max for row in bench.rows if name in row.phases_us)
    ]
    rows = [
        [
            row.strategy, with_bounds(row.wall_s), "" if row.strategy == OFF else percent(row.penalty_percent),
            median(row.elements), median(row.pages_per_element), str(row.divergences),
            *(median(row.phases_us.get(name)) for name in phases), row.reason,
        ]
        for row in bench.rows
    ]  # fmt: skip
    columns = ["strategy", "seconds (min, max)", "penalty", "elements", "pages an element", "divergences"]
    return Table([*columns, *(f"{name}, us" for name in phases), "remark"], rows)


def collect_qemu(out: Path) -> Figures:
    """Of scripts/compare-qemu: the last line that it has printed."""
    return json.loads((out / "printed").read_text().splitlines()[-1])


def qemu_table(figures: Figures) -> Table:
    rows = [
        ["QEMU" if name == "qemu" else "off", ", ".join(map(figure, values)), figure(figures["medians"][name])]
        for name, values in figures["seconds_to_token"].items()
    ]
    return Table(["", "seconds to the token", "median"], [*rows, ["off over QEMU", "", figure(figures["ratio"])]])


def collect_netbench(out: Path) -> Figures:
    return _read(NETBENCH)


def netbench_table(figures: Figures) -> Table:
    columns = {"out_s": "8 MiB out, ms", "in_s": "8 MiB in, ms", "echo_s": "echo, ms"}
    rows = [
        ["QEMU" if name == "qemu" else name, *(_ms(measured[column]) for column in columns)]
        for name, measured in figures.items()
    ]
    return Table(["", *columns.values()], rows)


def _ms(values: Sequence[float]) -> str:
    low, middle, high = (1000 * value for value in (min(values), statistics.median(values), max(values)))
    return f"{figure(middle)} ({figure(low)} to {figure(high)})"


def collect_boots(out: Path) -> Figures:
    """Of scripts/pmu-boots --boot-only."""
    found = []
    for path in sorted(PMU_BOOTS.glob("*-*-*.json")):
        report = load(path)
        tsc, pmu, seed = path.stem.split("-")
        found.append(
            {
                "tsc": "sites" if tsc == "sites" else "frozen", "pmu": pmu, "seed": int(seed),
                "elements": report.elements.committed, "slices": report.slices.ended,
                "catch_ups": report.slices.catch_ups, "debug_exits": report.slices.debug_exits,
                "divergences": report.divergences.by_cause, "unexplained": report.divergences.unexplained,
                "outcome": report.outcome, "seconds": report.wall_s,
            }
        )  # fmt: skip
    return found


def boots_table(figures: Figures) -> Table:
    rows = []
    for boot in figures:
        each = max(1, boot["slices"])
        rows.append(
            [
                boot["tsc"], f"{boot['pmu']}, seed {boot['seed']}", f"{boot['elements']:,}, {boot['slices']:,}",
                f"{boot['catch_ups'] / each:.2f}", f"{boot['debug_exits'] / each:.2f}",
                counted(boot["divergences"]), str(boot["unexplained"]), boot["outcome"], f"{boot['seconds']:.1f}",
            ]
        )  # fmt: skip
    columns = [
        "TSC",
        "PMU",
        "elements, slices",
        "catch-ups a slice",
        "debug exits a slice",
        "divergences",
        "unexplained",
    ]
    return Table([*columns, "ended by", "seconds"], rows)


def collect_checks(out: Path) -> Figures:
    """Results of `dwcvmm check`, by the names of their files."""
    return {path.stem: _read(path) for path in sorted(out.glob("*.json"))}


def checks_table(figures: Figures) -> Table:
    rows = []
    for name, result in figures.items():
        check: CheckResult = _as(result, CheckResult)
        rows.append(
            [
                f"`{name}`", f"{check.slice_ends:,}", counted(check.divergences, "0"), str(check.unexplained),
                f"{check.catch_ups:,}", f"{check.debug_exits / max(1, check.slice_ends):.1f}",
                f"{check.count_distance[0]:,}",
            ]
        )  # fmt: skip
    columns = [
        "slice ends",
        "divergences",
        "unexplained",
        "catch-ups",
        "debug exits a slice",
        "stops at the same count",
    ]
    return Table(["`--pmu`", *columns], rows)


def campaign_table(figures: Figures) -> Table:
    """A row for each kind of target, and the sum with exact bounds. With --def-use also one of all drawn faults."""
    names = ["masked", RECOVERED, "detected and stopped", "guest crash", "hang", SILENT, "not activated", "tool error"]
    rows = [[kind, *(_count(of, name) for name in names)] for kind, of in figures["by_target"].items()]
    sums = {"**all**": figures}
    if figures["pruned"]:
        sums["**all drawn faults**"] = figures["pruned"]
    for title, of in sums.items():
        cells = {name: _count(of["classes"], name) for name in names}
        cells[RECOVERED] += f", at least {100 * of['bounds']['coverage of effective faults']['lower']:.3f} %"
        cells[SILENT] += f", at most {100 * of['bounds'][SILENT]['upper']:.3f} %"
        rows.append([title, *cells.values()])
    return Table(["target", *names], rows)


def _count(counts: Mapping[str, int], name: str) -> str:
    return f"{counts.get(name, 0):,}"


def collect_def_use(out: Path) -> Figures:
    """Of campaigns with --def-use, by guest: how their faults were pruned, and into how many experiments."""
    return {
        path.parent.name: {
            "pruning": _read(path),
            "experiments": len((path.parent / "faults.ndjson").read_bytes().splitlines()),
        }
        for path in sorted(out.glob("*/pruning.json"))
    }


def def_use_table(figures: Figures) -> Table:
    rows = []
    for guest, found in figures.items():
        pruning = found["pruning"]
        points, classes, of = pruning["points"], pruning["classes"], pruning["points_by_next"]
        length = f"{points / REGISTERS / pruning['elements'] - 1:.0f}" if pruning["whole"] else "-"
        rows.append(
            [
                f"`{guest}`", f"{pruning['whole']} of {pruning['elements']}", length,
                ", ".join(f"{100 * of[kind] / points:.1f}" for kind in ("read", "overwritten", "compared")) + " %",
                f"{points / (classes['read'] + classes['compared']):.2f}",
                f"{pruning['drawn'] / found['experiments']:.2f}",
            ]
        )  # fmt: skip
    columns = ["guest", "elements stepped to their ends", "instructions an element"]
    return Table([*columns, "points read next, overwritten, compared", "all", "drawn"], rows)


def collect_soak(out: Path) -> Figures:
    """Sums by host and kind of guest."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(SOAK.glob("*.json")):
        found = _read(path)
        piece, figures = found["piece"], found["figures"]
        kind = f"Linux, {piece['strategy']}" if piece["guest"] == "linux" else "tiny guests"
        of = sums.setdefault(
            (piece["host"], kind), {"elements": 0, "slice_ends": 0, "unexplained": 0, "divergences": Counter()}
        )
        for name in ("elements", "slice_ends", "unexplained"):
            of[name] += figures[name]
        of["divergences"].update(figures["divergences"])
    return [{"host": host, "guests": kind, **of} for (host, kind), of in sums.items()]


def soak_table(figures: Figures) -> Table:
    rows = [
        [
            row["host"], row["guests"], f"{row['elements']:,}", f"{row['slice_ends']:,}",
            counted(row["divergences"], "-"), str(row["unexplained"]),
        ]
        for row in figures
    ]  # fmt: skip
    return Table(["host", "guests", "elements", "slice ends", "divergences", "unexplained"], rows)


def collect_benchmarks(out: Path) -> Figures:
    """Of scripts/benchmarks: seconds of each benchmark, round by round, how often it failed; elements of each boot."""
    seconds: dict[str, dict[str, list[float]]] = {}
    failed: Counter[str] = Counter()
    boots = []
    for path in sorted(BENCHMARKS.glob("*.ndjson")):
        for entry in map(json.loads, path.read_text().splitlines()):
            if "name" not in entry:
                divergences = entry["divergences"]
                boots.append(
                    {
                        "strategy": path.stem, "elements": entry["elements"],
                        "divergences": divergences["by_cause"], "unexplained": divergences["unexplained"],
                    }
                )  # fmt: skip
                continue
            seconds.setdefault(entry["name"], {}).setdefault(path.stem, []).append(entry["seconds"])
            failed[entry["name"]] += bool(entry["failed"])
    rows = [{"name": name, "failed": failed[name], "seconds": of} for name, of in seconds.items()]
    return {"benchmarks": rows, "boots": boots}


def collect_compile(out: Path) -> Figures:
    """Of scripts/compile: its pieces, and the sum of the result, which was equal to the disk's (a kernel booted)."""
    found = []
    for path in sorted(COMPILE.glob("*/*.ndjson"), key=lambda path: (path.parent.name == "gcc", path.stem)):
        lines = list(map(json.loads, path.read_text().splitlines()))
        results = [line for line in lines if "result" in line]
        pieces = [line for line in lines if "result" not in line]
        of = {"what": path.parent.name, "strategy": path.stem}
        found.append(of | {"pieces": pieces, "result": results[-1] if results else None})
    return {"compiled": found}


def compile_table(figures: Figures) -> Table:
    rows = []
    for each in figures["compiled"]:
        pieces = each["pieces"]
        rows.append([
            each["what"], each["strategy"], str(len(pieces)), str(sum(piece["files"] for piece in pieces)),
            f"{sum(piece['seconds'] for piece in pieces):.0f}", f"{sum(piece['elements'] for piece in pieces):,}",
            _causes(piece["divergences"]["by_cause"] for piece in pieces),
            str(sum(piece["divergences"]["unexplained"] for piece in pieces)),
            f"{each['result']['result']} `{each['result']['sha256'][:16]}`" if each["result"] else "not ready",
        ])  # fmt: skip
    columns = ["of", "strategy", "pieces", "files", "seconds", "elements", "divergences", "unexplained", "SHA-256"]
    return Table(columns, rows)


def times_off(figures: Figures) -> dict[str, dict[str, float]]:
    """By strategy and benchmark: the median as a multiple of that under off."""
    found: dict[str, dict[str, float]] = {}
    for row in figures["benchmarks"]:
        if off := row["seconds"].get(OFF):
            for strategy in PROTECTED:
                if measured := row["seconds"].get(strategy):
                    ratio = statistics.median(measured) / statistics.median(off)
                    found.setdefault(strategy, {})[row["name"]] = ratio
    return found


def of_kind(ratios: Mapping[str, float], stressors: bool) -> list[float]:
    """Of the stressors, or of all others."""
    return [ratio for name, ratio in ratios.items() if name.startswith(STRESSOR) == stressors]


def benchmarks_table(figures: Figures) -> Table:
    """Times with the least and the greatest, and how many times those of off they are; at the end geometric means."""
    found = times_off(figures)
    rows = []
    for row in figures["benchmarks"]:
        cells = [with_bounds(spread(row["seconds"].get(OFF, [])))]
        for strategy in PROTECTED:
            ratio = found.get(strategy, {}).get(row["name"])
            cells += [with_bounds(spread(row["seconds"].get(strategy, []))), f"{ratio:.2f}" if ratio else "-"]
        rows.append([row["name"], *cells, str(row["failed"])])
    for title, stressors in (("programs", False), ("stressors", True)):
        cells = []
        for strategy in PROTECTED:
            of = of_kind(found.get(strategy, {}), stressors)
            cells += ["", f"**{statistics.geometric_mean(of):.2f}**" if of else "-"]
        rows.append([f"**{title}, geometric mean**", "", *cells, ""])
    cells = []
    for strategy in PROTECTED:
        cells += [_elements_and_causes([boot for boot in figures["boots"] if boot["strategy"] == strategy]), ""]
    rows.append(["**elements; divergences; unexplained**", "", *cells, ""])
    columns = [text for strategy in PROTECTED for text in (f"{strategy}, s", "times off")]
    return Table(["benchmark", "off, s (min, max)", *columns, "failed"], rows)


def _elements_and_causes(boots: Sequence[Mapping[str, Any]]) -> str:
    """Of the boots in which benchmarks ran."""
    elements, unexplained = (sum(boot[name] for boot in boots) for name in ("elements", "unexplained"))
    return f"{elements:,}; {_causes(boot['divergences'] for boot in boots)}; {unexplained}"


def _causes(of: Iterable[Mapping[str, int]]) -> str:
    """How often each cause occurred, in all of them together."""
    causes: Counter[str] = Counter()
    for each in of:
        causes.update(each)
    return counted(causes)
