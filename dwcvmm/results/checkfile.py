"""The result file of `dwcvmm check`, `dwcvmm-check/1`."""

from __future__ import annotations

import msgspec

from dwcvmm.results.origin import Origin

SCHEMA = "dwcvmm-check/1"


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the runs of one guest. Histograms: bucket n counts values below 2**n.

    A field with a default may be missing in a file.
    """

    schema: str = SCHEMA
    origin: Origin = Origin()
    guest: str
    strategy: str
    slice_ns: int
    progress: str = ""  # what is counted: instructions, branches, none
    frozen_tsc: bool = False
    elements: int
    runs: int = 0
    wall_s: float = 0.0
    by_end: dict[str, int] = {}  # KVM exit names
    divergences: dict[str, int]  # by cause
    unexplained: int
    normalised: dict[str, int] = {}
    count_distance: list[int]  # |n1 - n2|: events between the stops of both replicas
    skid: list[int]  # by how many events e1 stopped late
    slice_ends: int
    catch_ups: int
    debug_exits: int
    tick_waits: int = 0
    longest_element_us: float = 0.0
    longest_element_slices: float = 0.0
    elements_per_s: float = 0.0


def bucket_labels(count: int) -> list[str]:
    """Labels of the buckets of a histogram: bucket n counts values below 2**n and not below 2**(n-1)."""
    ranges = [f"{1 << (i - 1)}-{(1 << i) - 1}" for i in range(2, count)]
    return ["0", "1", *ranges][:count]
