"""The page: kinds of inputs by content, nothing unescaped, nothing asked for, colours that can be seen on the paper."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import EXAMPLE, decoded

from dwcvmm.cli import report as command
from dwcvmm.errors import ConfigError
from dwcvmm.experiments.bench_runs import Guest, document
from dwcvmm.page import pictures
from dwcvmm.page.html import Section, Table, render
from dwcvmm.page.inputs import KINDS, Document, read
from dwcvmm.page.sections import points_of, sections
from dwcvmm.page.style import COLOURS
from dwcvmm.page.svg import inline
from dwcvmm.results import campaignfile
from dwcvmm.results.benchfile import (
    ELEMENTS,
    EXITS,
    MEMORY,
    OFF,
    Against,
    BuildFacts,
    Comparison,
    ElementsBench,
    ElementsRow,
    ExitsBench,
    ExitsRow,
    MemoryBench,
    MemoryRow,
    Run,
    RunsBench,
)
from dwcvmm.results.campaignfile import Campaign
from dwcvmm.results.checkfile import CheckResult
from dwcvmm.results.doctorfile import Finding, Level
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.origin import Origin
from dwcvmm.results.phasenames import NAMES
from dwcvmm.results.qualifyfile import Costs, Fitness, Qualification
from dwcvmm.results.rates import Spread
from dwcvmm.results.ratios import Ratio
from dwcvmm.results.reportfile import Phases, Report

EVIL = "<script>alert('a & b')</script> $x^2$"
TEMPLATE = Path(command.__file__).parents[1] / "page" / "page.html.j2"


def bench(hashes: bool = False) -> RunsBench:
    """Off and sequential, and a strategy that the host refused."""
    runs = [Run(round=0, strategy="in-place", wrong=[f"refused: {EVIL}"], refused=True)]
    for number in range(2):
        for strategy, wall_s in ((OFF, 2.0), ("sequential", 5.0 + number)):
            runs.append(Run(round=number, strategy=strategy, report=decoded(strategy=strategy, wall_s=wall_s)))
    return document(Guest(Path("k"), hashes=hashes), (OFF, "sequential", "in-place"), 2, runs)


def elements() -> ElementsBench:
    numbers = {"plain_us": 200.0, "dwc_us": 410.0, "penalty_percent": 105.0, "penalty_min": 101.0, "penalty_max": 140.0}
    rows = [
        ElementsRow(strategy=strategy, work_us=190.0, dirty_pages=pages, compare_commit_us_per_page=None, **numbers)
        for strategy in ("sequential", "parallel")
        for pages in (0, 50)
    ]
    return ElementsBench(schema=ELEMENTS, origin=Origin(command=EVIL), rows=rows, against=against())


def against() -> Against:
    """Another build, whose folder has an odd name; a figure with an interval, one without, one without a ratio."""
    builds = [BuildFacts(path=path, version="1") for path in ("/p", EVIL)]
    found = [
        Comparison(
            strategy=name, case=EVIL, figure="penalty, %", this=Spread(9, 8, 10), other=Spread(10, 9, 11), ratio=ratio
        )
        for name, ratio in (("parallel", Ratio(0.9, 0.8, 0.95)), ("sequential", Ratio(0.9)), ("off", None))
    ]
    return Against(this=builds[0], other=builds[1], rounds=7, comparisons=found)


def memory() -> MemoryBench:
    """Two sizes, of which the second is refused."""
    rows = [
        MemoryRow(strategy="off", memory_bytes=64 << 20, start_s=Spread(1, 1, 2), resident_bytes=Spread(9e7, 8e7, 9e7),
                  us_a_turn=Spread(200, 190, 220)),
        MemoryRow(strategy="off", memory_bytes=8 << 30, reason=EVIL),
    ]  # fmt: skip
    return MemoryBench(schema=MEMORY, origin=Origin(command=EVIL), rounds=3, work_us=200, dirty_pages=10, rows=rows)


def exits() -> ExitsBench:
    rows = [
        ExitsRow(
            strategy=strategy, access=EVIL, us_an_exit=Spread(7, 6, 8), over_off=over, exits_an_element=1.0,
            handovers_an_element=None, phases_us={"first_run": 4.0, "python": 2.0, "other": 1.0},
        )
        for strategy, over in (("off", None), ("sequential", Spread(5, 5, 5)))
    ]  # fmt: skip
    return ExitsBench(schema=EXITS, origin=Origin(command=EVIL), rounds=5, rows=rows)


CHECK = {
    "schema": "dwcvmm-check/1", "guest": EVIL, "strategy": "sequential", "elements": 9, "slice_ns": 200_000,
    "slice_ends": 6, "catch_ups": 1, "debug_exits": 2, "unexplained": 0, "divergences": {"time": 2},
    "count_distance": [3, 2, 1, 0], "skid": [0, 6, 0, 0], "runs": 1, "wall_s": 1.0,
}  # fmt: skip
FAULTS = {
    "schema": campaignfile.SCHEMA, "guest": EVIL, "command": "dwcvmm campaign", "faults": 30, "golden": {"runs": 2},
    "classes": {"masked": 9, "recovered": 21, "silent": 0},
    "by_target": {"rax": {"masked": 4, "recovered": 11}, EVIL: {"masked": 5, "recovered": 10}},
    "bounds": {"coverage": {"confidence": 0.95, "lower": 0.9, "upper": 0.999, "of": 21}},
    "latency_elements": {"histogram": {"0": 20, "3": 1}, "max": 3},
    "latency_us": {"median": 10.0, "p99": 20.5, "max": 21.0},
}  # fmt: skip
QUALIFIED = Qualification(
    fitness=Fitness.LIMITED, verdict=f"fit with limits: {EVIL}", findings=[Finding("cpus", Level.NOTE, "one")],
    costs=Costs(exit=1.25),
)  # fmt: skip
EXAMPLES: dict[str, Any] = {
    "qualify": QUALIFIED,
    "run": EXAMPLE | {"penalty_percent": 150.0, "guest": EXAMPLE["guest"] | {"kernel": f"/k/{EVIL.replace('/', '')}"}},
    "boot": bench(),
    "workload": bench(hashes=True),
    "elements": elements(),
    "memory": memory(),
    "exits": exits(),
    "check": CHECK,
    "campaign": FAULTS,
}
TYPES = {
    "run": Report,
    "elements": ElementsBench,
    "memory": MemoryBench,
    "exits": ExitsBench,
    "check": CheckResult,
    "campaign": Campaign,
    "qualify": Qualification,
}


def write(directory: Path, example: object, name: str = "in.json") -> Path:
    path = directory / name
    path.write_bytes(pretty_json(example))
    return path


def all_examples(directory: Path) -> list[tuple[Path, Document]]:
    return [(path, read(path)) for path in (write(directory, EXAMPLES[name], f"{name}.json") for name in EXAMPLES)]


class Parsed(HTMLParser):
    """Tags, ids and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("name", EXAMPLES)
def test_kinds_are_told_by_content(tmp_path: Path, name: str) -> None:
    assert type(read(write(tmp_path, EXAMPLES[name]))) is TYPES.get(name, RunsBench)


def test_every_kind_has_an_example() -> None:
    assert {msgspec.to_builtins(example)["schema"] for example in EXAMPLES.values()} == set(KINDS)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xff\xfe", b"[]", b"{}", b"3", b'{"schema": "dwcvmm-other/1"}', b'{"schema": ["a"]}',
     b'{"schema": "dwcvmm-report/1"}', b'{"schema": "dwcvmm-campaign/1", "classes": 3}'],
)  # fmt: skip
def test_an_unknown_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "strange.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.json"):
        read(tmp_path / "no.json")


def test_page_of_everything(tmp_path: Path) -> None:
    made = sections(all_examples(tmp_path))
    assert [s.title for s in made] == [
        "Host", "Boot", "Workload", "Runs", "Elements", "Exits", "Memory", "Penalty and exits", "Slice ends", "Faults",
    ]  # fmt: skip
    text = render(made, "2026", "0")
    page = Parsed(text)
    assert page.tags["table"] == sum(isinstance(part, Table) for s in made for part in s.parts)
    assert page.tags["svg"] == sum(len(s.pictures) for s in made) == 11
    # escaped everywhere, and there: in a guest's name, a reason, a command, the labels of pictures
    assert page.tags["script"] == 0
    assert text.count("&lt;script&gt;") >= 4
    assert "".join(page.words).count(EVIL) >= 4
    # self-contained: no address but those of its own parts
    assert "http:" not in text and "https:" not in text and "@import" not in text
    references = [value for name, value in page.attributes if name in ("href", "src", "xlink:href", "data")]
    assert references and all(value.startswith("#") and value[1:] in page.ids for value in references)
    assert all(target in page.ids for target in re.findall(r"url\(#([^)]*)\)", text))
    assert len(set(page.ids)) == len(page.ids)


def test_a_page_of_nothing_but_a_refused_strategy() -> None:
    runs = [Run(round=0, strategy="in-place", wrong=["no EPT"], refused=True)]
    (made,) = sections([(Path("b"), document(Guest(Path("k")), ("in-place",), 1, runs))])
    assert "no EPT" in render([made], "", "")
    assert not made.pictures


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(sorted(FAULTS.keys() - {"schema"}))))
def test_a_campaign_may_lack_any_field(missing: set[str]) -> None:
    campaign = msgspec.convert({key: value for key, value in FAULTS.items() if key not in missing}, Campaign)
    text = render(sections([(Path("c"), campaign)]), "", "")
    assert ("99.900" in text) == ("bounds" not in missing)
    assert ("30.00" in text) == ("classes" not in missing)
    assert ("Golden runs: 2." in text) == ("golden" not in missing and "<figcaption" in text)


@pytest.mark.parametrize(
    "golden", [[{"guest": "a", "runs": 2}, {"guest": "b", "runs": 3}], {"runs": 5, "elements": [1]}]
)
def test_golden_runs_of_one_guest_or_several(golden: object) -> None:
    campaign = msgspec.convert(FAULTS | {"golden": golden, "guests": ["a", "b"], "guest": ""}, Campaign)
    text = render(sections([(Path("c"), campaign)]), "", "")
    assert "Golden runs: 5." in text
    assert "Guest: a, b." in text


def test_penalties_are_set_against_exits_without_double_execution() -> None:
    first, second = points_of(bench())
    assert (first.source, first.strategy, first.penalty_percent) == ("boot", "sequential", 150.0)
    assert first.exits_per_s == second.exits_per_s == 20_000 / 2.0
    (alone,) = points_of(decoded(wall_s=5.0, penalty_percent=150.0))
    assert alone.exits_per_s == pytest.approx(20_000 / 2.0)
    assert points_of(decoded()) == []
    assert {(p.exits_per_s, p.penalty_percent) for p in points_of(elements())} == {(5000.0, 105.0)}


PHASES = st.dictionaries(st.sampled_from([*NAMES]), st.floats(0, 1e6))


@given(st.lists(PHASES, min_size=1))
def test_what_is_drawn_is_all_of_an_element(bars: list[dict[str, float]]) -> None:
    shown = pictures.shown_phases(bars)
    assert len(shown) < len(COLOURS)  # no colour twice
    assert shown == [phase for phase in NAMES if phase in shown]
    for phases in bars:
        assert sum(pictures.by_name(phases, shown).values()) == pytest.approx(sum(phases.values()))


def test_a_great_phase_is_drawn_by_itself() -> None:
    small = dict.fromkeys(NAMES, 1.0)
    shown = pictures.shown_phases([small, small | {"start": 90.0}])
    assert "start" in shown
    assert "scrub" in pictures.shown_phases([{"first_run": 97.0, "scrub": 3.0, "end": 0.5}])
    assert "end" not in pictures.shown_phases([{"first_run": 97.0, "scrub": 3.0, "end": 0.5}])


def test_every_phase_of_a_report_has_a_name() -> None:
    assert list(NAMES) and set(NAMES) == {field.name for field in msgspec.structs.fields(Phases)}


@pytest.mark.parametrize("lowest", [-40.0, 0.0, 3.0])
def test_penalties_at_or_below_nothing_are_drawn(lowest: float) -> None:
    points = [pictures.Point("boot", "parallel", x, y) for x, y in ((10.0, lowest), (1e5, 4000.0))]
    (axis,) = pictures.penalty_by_exits(points).axes
    low, high = axis.get_ylim()
    assert low < lowest and high > 4000


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1) of #rrggbb."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_legible_in_light_and_dark() -> None:
    """WCAG 2.1: 4.5 for text (7 for the text of pictures, which may be small), 3 for graphics."""
    themes = re.findall(r":root \{(.*?)\}", TEMPLATE.read_text(), re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        assert contrast(colours["ink"], colours["paper"]) > 7
        assert contrast(colours["soft"], colours["paper"]) > 4.5
        assert contrast(colours["ink"], colours["band"]) > 7
        assert all(contrast(colours[f"c{i}"], colours["paper"]) >= 3 for i in range(8))


def test_every_colour_of_a_picture_is_the_pages() -> None:
    """A colour that stayed as drawn would be one for light paper only."""
    text = inline(pictures.penalty_by_pages(elements().rows), "n", "label")
    assert not re.search(r"#[0-9a-f]{6}\b", text)
    assert "currentColor" in text and "var(--c0)" in text


def test_sections_without_figures_are_left_out() -> None:
    assert sections([(Path("e"), msgspec.structs.replace(elements(), rows=[]))]) == []
    assert Section("Boot").pictures == []
