"""What `dwcvmm check` says of a guest that was run more than once."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.experiments.check import COUNTS, HISTOGRAMS, MOST, SUMS, picture, together
from dwcvmm.results.checkfile import CheckResult, bucket_labels

NUMBER = st.integers(0, 1 << 40)
COUNTED = st.dictionaries(st.sampled_from(["io", "intr", "hlt"]), NUMBER)
RESULTS = st.builds(
    CheckResult,
    guest=st.just("compute"),
    strategy=st.just("parallel"),
    slice_ns=st.just(200_000),
    **dict.fromkeys(SUMS, NUMBER),
    **dict.fromkeys(COUNTS, COUNTED),
    **{name: st.lists(NUMBER, min_size=64, max_size=64) for name in HISTOGRAMS},
    **{name: st.floats(0, 1e9) for name in MOST},
)


@given(RESULTS, RESULTS)
def test_two_runs_are_added_up(a: CheckResult, b: CheckResult) -> None:
    both = together(a, b)
    for name in SUMS:
        assert getattr(both, name) == getattr(a, name) + getattr(b, name)
    for name in COUNTS:
        assert getattr(both, name).keys() == getattr(a, name).keys() | getattr(b, name).keys()
        assert sum(getattr(both, name).values()) == sum(getattr(a, name).values()) + sum(getattr(b, name).values())
    for name in HISTOGRAMS:
        assert [n - m for n, m in zip(getattr(both, name), getattr(a, name), strict=True)] == getattr(b, name)
    for name in MOST:
        assert getattr(both, name) == max(getattr(a, name), getattr(b, name))


def test_every_field_is_added_or_the_same() -> None:
    """A field that is new is not forgotten."""
    same = {"schema", "origin", "guest", "strategy", "slice_ns", "progress", "frozen_tsc"}
    of_all_runs = {"wall_s", "elements_per_s"}  # known at the end
    added = {*SUMS, *COUNTS, *HISTOGRAMS, *MOST}
    assert {field.name for field in msgspec.structs.fields(CheckResult)} == same | of_all_runs | added


@given(RESULTS)
def test_bars_are_named_by_their_buckets(result: CheckResult) -> None:
    lines = picture(result).splitlines()
    for name, title in (("count_distance", "|n1 - n2|"), ("skid", "skid")):
        last = max((i for i, n in enumerate(getattr(result, name)) if n), default=-1)
        starts = [i for i, line in enumerate(lines) if line.startswith(title)]
        assert len(starts) == (last >= 0)
        if starts:
            shown = [line.split()[:2] for line in lines[starts[0] + 1 : starts[0] + 2 + last]]
            assert shown == [
                [label, str(n)] for label, n in zip(bucket_labels(last + 1), getattr(result, name), strict=False)
            ]
