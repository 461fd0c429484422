"""A report as a few lines for people, shown on stderr at the end of a run."""

from __future__ import annotations

from dwcvmm.results.figures import counted
from dwcvmm.results.reportfile import Report


def summarise(report: Report) -> str:
    elements, phases = report.elements, report.phases_s
    rate = elements.committed / report.wall_s if report.wall_s else 0.0
    lines = [
        f"{report.outcome} after {report.wall_s:.2f} s, guest time {report.guest_s:.2f} s, strategy {report.strategy}",
        f"elements     {elements.committed} committed ({rate:.0f}/s), {elements.unprotected} unprotected",
        f"  ended by   {counted(elements.by_end)}",
        f"pages        {report.pages.compared} compared, {report.pages.copied} copied to the checkpoint, "
        f"at most {report.pages.hot_max} in an element",
        f"divergences  {report.divergences.total} ({counted(report.divergences.by_cause)}), "
        f"{report.divergences.unexplained} unexplained; {report.rollbacks} rollbacks",
        f"time         e1 {phases.first_run:.2f} s, e2 {phases.second_run:.2f} s, "
        f"compare and commit {phases.compare_commit:.2f} s, rollback {phases.rollback:.2f} s, "
        f"devices {phases.device:.2f} s, other {phases.other:.2f} s",
    ]
    if phases.restore:
        lines.append(f"  in place   restore {phases.restore:.2f} s, cache flush {phases.flush:.2f} s")
    if report.outcome == "halt":
        lines.append("HALTED       for good: the guest has neither switched off nor written to the debug exit")
    slices = report.slices
    if slices.ended:
        lines.append(
            f"slices       {slices.ended} ended by {slices.progress}, TSC {slices.tsc}, "
            f"{slices.debug_exits / slices.ended:.1f} debug exits each, longest {slices.longest_element_us:.0f} us"
        )
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
