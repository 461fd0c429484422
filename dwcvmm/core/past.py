"""Snapshots of a replay on its way, to which it can go back (cbits/element/past.h)."""

from __future__ import annotations

from dwcvmm.core._binding import lib
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Rollback
from dwcvmm.core.failure import check

MOST_SNAPSHOTS = int(lib.DWC_MOST_SNAPSHOTS)


def can_keep(core: Core) -> bool:
    """Whether the replay stands where a snapshot can be taken: between two elements, the last of which is a
    checkpoint.
    """
    return bool(lib.dwc_past_can_keep(core._c))


def keep(core: Core) -> None:
    """Take a snapshot. Raises KvmError if there is no memory for it."""
    check("snapshot", lib.dwc_past_keep(core._c))


def thin(core: Core, number: int) -> None:
    """Forget this one (from 0), which is neither the first nor the last. Raises KvmError as `keep` does."""
    check("snapshot", lib.dwc_past_thin(core._c, number))


def elements(core: Core) -> list[int]:
    """How many elements were committed at each snapshot that is kept."""
    past = core._c.past
    return [int(past.at[number].committed) for number in range(past.count)]


def kept_bytes(core: Core) -> int:
    """Memory of the pages that are kept for all of them."""
    return int(core._c.undo.bytes)


def is_lost(core: Core) -> bool:
    """Whether there was no memory for a page, so that no snapshot is of use any more."""
    return bool(core._c.undo.lost)


def go_back(core: Core, number: int) -> Rollback:
    """Go back to this snapshot; those behind it are forgotten."""
    return Rollback(check("go back", lib.dwc_past_go_back(core._c, number)))
