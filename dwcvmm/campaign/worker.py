"""A process that runs guests with faults: the campaign's facts and then jobs come as lines of JSON on stdin, answers go
to stdout. It ends when its parent ends: a run that hangs in the kernel must not outlive a killed campaign.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import msgspec

from dwcvmm.campaign.outcome import Class, classify, classify_run
from dwcvmm.campaign.runs import run_guest
from dwcvmm.campaign.spec import Facts, Golden, Planned, Result
from dwcvmm.errors import as_error
from dwcvmm.faults.injector import Injection
from dwcvmm.faults.model import parse_all
from dwcvmm.pc.result import Outcome

PR_SET_PDEATHSIG = 1
LEAST_LIMIT_S, LIMIT_FACTOR = 20.0, 10.0
SECOND_LIMIT = 5  # times the first limit, in case the host was only busy with something else


def limit_s(golden: Golden) -> float:
    """Seconds after which a run with faults counts as hung."""
    return max(LEAST_LIMIT_S, LIMIT_FACTOR * max(golden.wall_s))


class Answer(msgspec.Struct, kw_only=True):
    """`again`: the run had several faults and went wrong, so it says nothing about any one of them."""

    results: list[Result]
    again: bool = False


def result_of(
    planned: Planned, injections: list[Injection], run: Class | None, suspects: list[int], note: str
) -> Result:
    done = [injection for injection in injections if injection.done]
    found = [injection for injection in done if injection.detected_at is not None]
    first = min(found, key=lambda injection: injection.detected_ns, default=None)
    return Result(
        number=planned.number,
        outcome=classify(injections, run),
        latency_elements=first.detected_at - first.element if first and first.detected_at is not None else None,
        latency_us=first.latency_us if first else None,
        latent=any(injection.latent for injection in done),
        repaired=any(injection.repaired for injection in done),
        suspects=suspects,
        note=note if done else injections[0].became.value,
    )


def work(facts: Facts, job: list[Planned]) -> Answer:
    """Run the guest of `job` with all its faults."""
    spec = facts.spec
    guest, expected = spec.guests[job[0].guest], facts.golden[job[0].guest]
    groups = {planned.number: parse_all(planned.fault) for planned in job}
    faults = [fault for group in groups.values() for fault in group]
    try:
        run = run_guest(spec, guest, limit_s(expected), faults)
        if run.outcome is Outcome.TIMEOUT and len(job) == 1:
            run = run_guest(spec, guest, SECOND_LIMIT * limit_s(expected), faults)
    except Exception as error:  # of the host, or a bug: this job has no result, but the next ones may have one
        if len(job) > 1:
            return Answer(results=[], again=True)
        return Answer(results=[Result(number=job[0].number, outcome=Class.TOOL_ERROR, note=str(as_error(error)))])
    complaint = expected.oracle.complaint(run.output)
    if run.status != expected.status:
        complaint = complaint or f"status {run.status}"
    became = classify_run(Outcome(expected.outcome), run.outcome, complaint)
    if became and len(job) > 1:
        return Answer(results=[], again=True)
    note = f"{run.outcome}, {complaint or 'printed right'}, divergences {run.divergences}" if became else ""
    by_fault = {id(injection.fault): injection for injection in run.injections}
    return Answer(
        results=[
            result_of(planned, [by_fault[id(fault)] for fault in groups[planned.number]], became, run.suspects, note)
            for planned in job
        ]
    )


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        return  # the parent ended before
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    facts = msgspec.json.decode(sys.stdin.buffer.readline(), type=Facts)
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=list[Planned])
        sys.stdout.buffer.write(msgspec.json.encode(work(facts, job)) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
