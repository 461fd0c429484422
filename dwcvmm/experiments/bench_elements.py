"""The element benchmark: guest-images/ring3 under every strategy, interleaved, medians."""

from __future__ import annotations

import statistics
from pathlib import Path

from dwcvmm.core.enums import Activity
from dwcvmm.element.config import Strategy
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.errors import ConfigError
from dwcvmm.machine import Machine
from dwcvmm.results.benchfile import ELEMENTS, Against, ElementsBench, ElementsRow
from dwcvmm.results.origin import origin
from dwcvmm.results.reportbuilder import this_host

GUEST = Path(__file__).parents[2] / "build" / "guests" / "ring3.bin"
PARAMETERS = b"DWCP"
MEMORY_BYTES = 16 << 20
TURNS_LEFT, ENDLESS = "r12", 0x7FFFFFFF
WARM_UP, MEASURED = 50, 300  # elements
CALIBRATION_ITERATIONS = 100_000


def protected_strategies() -> list[Strategy]:
    """The strategies that compare, without those that this host cannot do."""
    refused = {Strategy.OFF, Strategy.IN_PLACE} if uses_shadow_paging(kvm_module()) else {Strategy.OFF}
    return [strategy for strategy in Strategy if strategy not in refused]


def set_parameters(image: bytes, mark: bytes, *values: int) -> bytes:
    """Put 32-bit `values` after `mark`, where the guest reads them."""
    at = image.index(mark) + len(mark)
    words = b"".join(value.to_bytes(4, "little") for value in values)
    return image[:at] + words + image[at + len(words) :]


def run_once(
    image: bytes, strategy: Strategy, iterations: int, pages: int, every: int = 1, scrub_bytes_per_s: int = 0
) -> tuple[float, float]:
    """Returns (us a turn of the guest, us an element for compare and commit). A turn ends with an output: so does an
    element, unless elements pass through outputs.
    """
    compares = strategy in (Strategy.SEQUENTIAL, Strategy.PARALLEL)
    with Machine(
        GUEST,
        image=set_parameters(image, PARAMETERS, iterations, pages, ENDLESS),
        memory=MEMORY_BYTES,
        strategy=strategy,
        checkpoint_every=every if compares else None,
        scrub=scrub_bytes_per_s if compares else 0,
        rtc="fixed",
    ) as machine:
        core = machine.pc.core
        machine.step(WARM_UP)
        compared_ns, before_s = core.spent_ns(Activity.COMPARE_COMMIT), machine.seconds
        left = machine.registers()[TURNS_LEFT]
        machine.step(MEASURED)
        took_us, turns = (machine.seconds - before_s) * 1e6, left - machine.registers()[TURNS_LEFT]
        return took_us / turns, (core.spent_ns(Activity.COMPARE_COMMIT) - compared_ns) / MEASURED / 1000


def document(rows: list[ElementsRow], against: Against | None = None) -> ElementsBench:
    return ElementsBench(schema=ELEMENTS, origin=origin(this_host()), rows=rows, against=against)


def measure(work_us: int, page_counts: list[int], rounds: int, every: int, scrub_bytes_per_s: int) -> list[ElementsRow]:
    """One row for each strategy and page count. Raises ConfigError if the guest has not been built."""
    try:
        image = GUEST.read_bytes()
    except OSError as error:
        raise ConfigError(f"{GUEST} is missing: run guest-images/build.sh") from error
    empty, _ = run_once(image, Strategy.OFF, 1, 0)
    loaded, _ = run_once(image, Strategy.OFF, CALIBRATION_ITERATIONS, 0)
    iterations = max(1, round(work_us * CALIBRATION_ITERATIONS / max(loaded - empty, 0.001)))
    protected = protected_strategies()
    times: dict[tuple[Strategy, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for pages in page_counts:
            for strategy in (Strategy.OFF, *protected):
                took = run_once(image, strategy, iterations, pages, every, scrub_bytes_per_s)
                times.setdefault((strategy, pages), []).append(took)
    return [_row(times, strategy, pages, empty, min(page_counts)) for pages in page_counts for strategy in protected]


def _row(
    times: dict[tuple[Strategy, int], list[tuple[float, float]]],
    strategy: Strategy,
    pages: int,
    empty: float,
    least: int,
) -> ElementsRow:
    plain = [t for t, _ in times[Strategy.OFF, pages]]
    dwc = [t for t, _ in times[strategy, pages]]
    compare = statistics.median(c for _, c in times[strategy, pages])
    base = statistics.median(c for _, c in times[strategy, least])
    # compare with the plain run of the same round: what slows the machine down slows both
    penalties = [100 * (d - p) / p for d, p in zip(dwc, plain, strict=True)]
    return ElementsRow(
        strategy=strategy.value,
        work_us=statistics.median(plain) - empty,
        dirty_pages=pages,
        plain_us=statistics.median(plain),
        dwc_us=statistics.median(dwc),
        penalty_percent=statistics.median(penalties),
        penalty_min=min(penalties),
        penalty_max=max(penalties),
        compare_commit_us_per_page=(compare - base) / (pages - least) if pages > least else None,
    )
