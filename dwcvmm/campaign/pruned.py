"""The result of a campaign whose faults were pruned by def-use: over all faults that were drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.spec import Directory, Planned, Pruning, Result
from dwcvmm.campaign.statistics import Bounds, bounds_of


class Pruned(msgspec.Struct, kw_only=True):
    """`experiments`: faults that were injected, or tried; `factor`: drawn faults for each of them. `factor_of_all`:
    what it would be if each point, bit and run of these elements were drawn. `classes`, `bounds`: of the drawn faults.
    """

    pruning: Pruning
    experiments: int
    factor: float | None
    factor_of_all: float
    classes: dict[str, int]
    bounds: dict[str, Bounds]


def pruned(
    directory: Directory, faults: Mapping[int, Planned], results: Mapping[int, Result], confidence: float
) -> Pruned | None:
    """None if nothing was pruned, or while results are missing: without them those that are known to be masked would
    count too much.
    """
    pruning = directory.pruning()
    if not pruning or len(results) < len(faults):
        return None
    classes = Counter({str(Class.MASKED): pruning.overwritten})
    for number, result in results.items():
        classes[result.outcome] += faults[number].weight
    return Pruned(
        pruning=pruning,
        experiments=len(results),
        factor=pruning.drawn / len(results) if results else None,
        factor_of_all=pruning.points / (sum(pruning.classes.values()) - pruning.classes["overwritten"]),
        classes={name.value: classes[name] for name in Class},
        bounds=bounds_of(classes, confidence),
    )


def pruned_lines(result: Pruned) -> list[str]:
    pruning = result.pruning
    share = {kind: 100 * points / pruning.points for kind, points in pruning.points_by_next.items()}
    classes = ", ".join(f"{name} {count}" for name, count in result.classes.items() if count)
    factor = f", {result.factor:.2f} drawn faults for each" if result.factor else ""
    return [
        f"def-use: {pruning.points} points in general registers of {pruning.elements} elements, {pruning.whole} of "
        f"which were stepped to their ends: {share['read']:.1f} % read next, {share['overwritten']:.1f} % overwritten, "
        f"{share['compared']:.1f} % compared; all of them in {result.factor_of_all:.2f} times fewer experiments",
        f"  {pruning.drawn} drawn, {pruning.overwritten} of them overwritten before they are read, the others in "
        f"{result.experiments} experiments{factor}",
        f"  of the drawn faults: {classes}",
    ]
