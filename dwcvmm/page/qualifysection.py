"""What `dwcvmm qualify` has found of a host, on the page. Its benches and checks have their own sections."""

from __future__ import annotations

from collections.abc import Iterator

from dwcvmm.page.captions import NONE, of
from dwcvmm.page.html import Table
from dwcvmm.results.checkfile import bucket_labels
from dwcvmm.results.doctorfile import with_remedy
from dwcvmm.results.figures import figure
from dwcvmm.results.qualifyfile import Qualification


def qualify_parts(found: Qualification) -> Iterator[Table]:
    about = of(found.origin)
    rows = [("verdict", found.verdict), *(("not measured", f"{part}: {why}") for part, why in found.left_out.items())]
    yield Table("How fit this host is.", about, ("", "what was found"), rows, ("what was found",))
    yield Table(
        "What doctor says.",
        about,
        ("finding", "level", "detail"),
        [(each.name, each.level.value, with_remedy(each.detail, each.remedy)) for each in found.findings],
        ("level", "detail"),
    )
    costs = (
        ("an exit: a port write, answered in C, strategy off", found.costs.exit),
        ("the first write to a page whose writes are logged", found.costs.write_fault),
        ("to compare and commit a page", found.costs.dirty_page),
        ("a hand-over from one thread to the other and back", found.costs.handover),
    )
    yield Table(
        "What things cost.", about, ("what", "us"), [(what, NONE if us is None else figure(us)) for what, us in costs]
    )
    if found.counters:
        yield Table(
            "Self-test of the counter, by event.",
            about,
            ("event", "usable", "result"),
            [
                (each.event, "yes" if each.usable else "no", with_remedy(each.reason, each.remedy))
                for each in found.counters
            ],
            ("usable", "result"),
        )
    late = [each for each in found.counters if each.late]
    if late:
        last = max(bucket for each in late for bucket, count in enumerate(each.late) if count)
        yield Table(
            "By how many events overflows came late.",
            about,
            ("events", *(each.event for each in late)),
            [
                (label, *(figure(each.late[bucket]) for each in late))
                for bucket, label in enumerate(bucket_labels(last + 1))
            ],
        )
