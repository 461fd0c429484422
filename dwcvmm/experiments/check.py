"""`dwcvmm check`: run a guest for a number of elements, and say what was not deterministic and what slice ends cost."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from dwcvmm.element.config import Strategy, Tsc
from dwcvmm.element.divergence import Cause, Divergence
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError
from dwcvmm.experiments.probing import set_parameters
from dwcvmm.experiments.tinyguests import guest_path
from dwcvmm.kvm.exits import exit_name
from dwcvmm.machine import Machine
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC
from dwcvmm.pc.result import Outcome
from dwcvmm.results.checkfile import CheckResult, bucket_labels
from dwcvmm.results.events import EventLog
from dwcvmm.results.figures import counted
from dwcvmm.results.origin import origin
from dwcvmm.results.reportbuilder import host_facts, normalised, slice_facts

MEMORY_BYTES = 32 << 20
ROUNDS, ENDLESS = b"DWCR", 0x7FFFFFFF  # the mark before a guest's number of rounds
BAR = 40
SUMS = ("runs", "elements", "unexplained", "slice_ends", "catch_ups", "debug_exits", "tick_waits")
COUNTS = ("by_end", "divergences", "normalised")
HISTOGRAMS = ("count_distance", "skid")
MOST = ("longest_element_us", "longest_element_slices")


def result_of(guest: str, pc: PC) -> CheckResult:
    """What a PC that has run shows."""
    stats, counts, engine = pc.core.stats, pc.engine.counts, pc.config.engine
    facts = slice_facts(pc)
    return CheckResult(
        origin=origin(host_facts(pc.replicas.host)),
        guest=guest,
        strategy=str(engine.strategy),
        slice_ns=engine.slice_ns,
        progress=facts.progress,
        frozen_tsc=pc.replicas.frozen_tsc is not None,
        elements=stats.committed,
        runs=1,
        by_end={exit_name(i): n for i, n in enumerate(stats.by_end) if n},
        divergences={str(cause): n for cause, n in counts.divergences.items()},
        unexplained=counts.divergences[Cause.UNEXPLAINED],
        normalised=normalised(pc),
        count_distance=facts.count_distance,
        skid=facts.skid,
        slice_ends=facts.ended,
        catch_ups=facts.catch_ups,
        debug_exits=facts.debug_exits,
        tick_waits=facts.tick_waits,
        longest_element_us=facts.longest_element_us,
        longest_element_slices=facts.longest_element_slices,
    )


def together(a: CheckResult, b: CheckResult) -> CheckResult:
    """Two results of the same guest as one."""

    def each(names: tuple[str, ...], both: Callable[[Any, Any], Any]) -> dict[str, Any]:
        return {name: both(getattr(a, name), getattr(b, name)) for name in names}

    return msgspec.structs.replace(
        b,
        **each(SUMS, operator.add),
        **each(COUNTS, lambda x, y: {key: x.get(key, 0) + y.get(key, 0) for key in x | y}),
        **each(HISTOGRAMS, lambda x, y: [m + n for m, n in zip(x, y, strict=True)]),
        **each(MOST, max),
    )


class _Log(Observer):
    def __init__(self, events: EventLog) -> None:
        self._events = events

    def divergence(self, record: Divergence) -> None:
        self._events.divergence(record, 0)


def endless(image: bytes) -> bytes:
    """Let a guest that computes in rounds go on until it is stopped."""
    return set_parameters(image, ROUNDS, ENDLESS) if ROUNDS in image else image


def _committed(machine: Machine, before: int) -> int:
    return before + machine.elements


def check_guest(
    name: str, elements: int, events: EventLog, strategy: Strategy, slice_ns: int, progress: Event | None, tsc: Tsc,
    on_elements: Callable[[Callable[[], int]], None] = lambda committed: None,
) -> CheckResult:  # fmt: skip
    """Run the tiny guest `name`, again and again if it ends, until `elements` are committed. `on_elements` gets a
    function that tells, from any thread, how many are.

    Raises ConfigError if there is no such guest, or it does not end as it should.
    """
    path = guest_path(name)
    image = path.read_bytes()
    result: CheckResult | None = None
    started = time.monotonic()
    while result is None or result.elements < elements:
        with Machine(
            path,
            image=endless(image),
            memory=MEMORY_BYTES,
            strategy=strategy,
            slice=f"{slice_ns}ns",
            progress=progress,
            tsc=tsc,
            rtc="fixed",
            observer=_Log(events),
        ) as machine:
            before = result.elements if result else 0
            on_elements(partial(_committed, machine, before))
            ended = machine.run(until_element=elements - before)
            found = result_of(name, machine.pc)
            result = together(result, found) if result else found
        if ended.outcome not in (None, Outcome.POWEROFF) or ended.exit_code:
            raise ConfigError(f"guest {name} ended by {ended.outcome}, status {ended.exit_code or 0}")
    wall_s = time.monotonic() - started
    return msgspec.structs.replace(result, wall_s=wall_s, elements_per_s=result.elements / wall_s)


def _bars(title: str, histogram: list[int]) -> list[str]:
    filled = [i for i, n in enumerate(histogram) if n]
    if not filled:
        return []
    most = max(histogram)
    lines = [title]
    for i, values in enumerate(bucket_labels(filled[-1] + 1)):
        lines.append(f"  {values:>15} {histogram[i]:>10} {'#' * round(BAR * histogram[i] / most)}")
    return lines


def picture(result: CheckResult) -> str:
    """The result as text for a terminal."""
    a_slice = result.debug_exits / result.slice_ends if result.slice_ends else 0.0
    lines = [
        f"guest {result.guest}, {result.strategy}, slice {result.slice_ns / 1000:g} us by {result.progress}, "
        f"TSC {'frozen' if result.frozen_tsc else 'running'}",
        f"elements     {result.elements} ({result.elements_per_s:.0f}/s), longest {result.longest_element_us:.0f} us, "
        f"by count {result.longest_element_slices:.2f} slices",
        f"  ended by   {counted(result.by_end)}",
        f"divergences  {counted(result.divergences)}; unexplained {result.unexplained}",
        "normalised   " + ", ".join(f"{name} {n}" for name, n in sorted(result.normalised.items())),
        f"slice ends   {result.slice_ends}, {result.catch_ups} catch-ups, {a_slice:.1f} debug exits each",
        *_bars("|n1 - n2|, events between the two stops", result.count_distance),
        *_bars("skid, events that e1 stopped late", result.skid),
    ]
    return "\n".join(lines)
