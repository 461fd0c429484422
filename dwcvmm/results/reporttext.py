"""A report as a few lines for people, shown on stderr at the end of a run."""

from __future__ import annotations

import msgspec

from dwcvmm.results.figures import counted, seconds
from dwcvmm.results.phasenames import NAMES
from dwcvmm.results.reportfile import NetTraffic, Report

LEAST_SHARE = 0.01


def times(report: Report) -> str:
    """Where the time went: each phase of at least a percent, the others together, and what has no name."""
    spent: dict[str, float] = msgspec.to_builtins(report.phases_s)
    unnamed = spent.pop("other")
    shown = {name: s for name, s in spent.items() if s >= LEAST_SHARE * report.wall_s and s > 0}
    parts = [f"{text.rpartition(': ')[2]} {seconds(shown[name])}" for name, text in NAMES.items() if name in shown]
    rest = sum(spent.values()) - sum(shown.values())
    return ", ".join([*parts, f"the rest {seconds(rest)}, without a name {seconds(unnamed)}"])


def passed(traffic: NetTraffic) -> str:
    dropped = f" ({traffic.dropped} more dropped)" if traffic.dropped else ""
    return f"{traffic.frames} frames with {traffic.bytes} bytes{dropped}"


def summarise(report: Report) -> str:
    elements = report.elements
    rate = elements.committed / report.wall_s if report.wall_s else 0.0
    lines = [
        f"{report.outcome} after {report.wall_s:.2f} s, guest time {report.guest_s:.2f} s, strategy {report.strategy}",
        f"elements     {elements.committed} committed ({rate:.0f}/s), {elements.unprotected} unprotected",
        f"  ended by   {counted(elements.by_end)}; exits within: {elements.inner_exits}",
        f"pages        {report.pages.compared} compared, {report.pages.copied} copied to the checkpoint, "
        f"at most {report.pages.hot_max} in an element",
        f"divergences  {report.divergences.total} ({counted(report.divergences.by_cause)}), "
        f"{report.divergences.unexplained} unexplained; {report.rollbacks} rollbacks",
        f"time         {times(report)}",
    ]
    if report.outcome == "halt":
        lines.append("HALTED       for good: the guest has neither switched off nor written to the debug exit")
    slices = report.slices
    if slices.ended:
        lines.append(
            f"slices       {slices.ended} ended by {slices.progress}, TSC {slices.tsc}, "
            f"{slices.debug_exits / slices.ended:.1f} debug exits each, longest {slices.longest_element_us:.0f} us"
        )
    for net in report.networks:
        ways = f"{passed(net.received)} in, {passed(net.sent)} out"
        lines.append(f"network      {net.backend}, {net.mac}: {ways}{'' if net.link_up else '; its link is down'}")
    for each in report.faults:
        seen = "repaired by the scrubber" if each.repaired else "not used" if each.latent else "no difference seen"
        became = f"found in element {each.detected_at}, undone" if each.detected_at is not None else seen
        lines.append(f"fault        {each.fault}: {became if each.became == 'injected' else each.became}")
    if report.scrub.pages:
        lines.append(
            f"scrubber     {report.scrub.pages} pages, {report.scrub.passes} passes in {report.scrub.seconds:.2f} s, "
            f"repairs: {counted(report.scrub.repairs)}"
        )
    for cpu in report.votes.suspect_cpus:
        lines.append(f"SUSPECT      CPU {cpu} has lost {report.votes.lost_by_cpu[str(cpu)]} votes")
    if report.penalty_percent is not None:
        lines.append(f"penalty      {report.penalty_percent:.1f} % over the baseline")
    if report.post_mortem:
        lines += ["post-mortem", *(f"  {line}" for line in report.post_mortem.splitlines())]
    return "\n".join(lines)
