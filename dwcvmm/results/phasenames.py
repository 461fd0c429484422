"""The phases of a report (reportfile.Phases) by names for people, in the order in which they are shown."""

from __future__ import annotations

# t1, r1, cf, t2, cc: the terms of an element's cost, tau = 100 * (t1 + r1 + cf + t2 + cc) / t2
NAMES = {
    "first_run": "t1: first run",
    "restore": "r1: restore",
    "flush": "cf: cache flush",
    "second_run": "t2: second run",
    "compare_commit": "cc: compare and commit",
    "registers": "registers read",
    "dirty_log": "dirty logs",
    "counter": "progress counter",
    "tick_wait": "waits for ticks",
    "handover": "hand-overs",
    "between": "inputs and interrupts",
    "device": "devices in C",
    "python": "Python",
    "alignment": "alignment",
    "discarded": "discarded runs",
    "rollback": "rollback",
    "replay": "replay",
    "search": "searches for sites",
    "steps": "single steps",
    "scrub": "scrubber",
    "idle": "idle",
    "start": "start",
    "end": "end",
    "other": "without a name",
}
