"""A state that cannot be ends the process, also in a release build, and says in which element and phase."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dwcvmm.core.bare import BareCore
from dwcvmm.core.enums import Phase

ELEMENT = 41
# what happens to elements, each a way from BETWEEN to BETWEEN
WAYS = {
    "committed": "INPUTS_CHOSEN RUNNING BOTH_ENDED BETWEEN",
    "visited": "INPUTS_CHOSEN START_VISITED RUNNING BOTH_ENDED BETWEEN",
    "in place": "INPUTS_CHOSEN RUNNING FIRST_RUN_DONE RUNNING BOTH_ENDED BETWEEN",
    "a part of an instruction": "FRAGMENT COMPARED BETWEEN",
    "aligned": "INPUTS_CHOSEN RUNNING COMPARED BETWEEN",
    "aligned and visited": "INPUTS_CHOSEN RUNNING COMPARED BOTH_ENDED BETWEEN",
    "retried": "INPUTS_CHOSEN RUNNING BOTH_ENDED DISCARDED ROLLING_BACK INPUTS_CHOSEN RUNNING BOTH_ENDED BETWEEN",
    "stepped": "INPUTS_CHOSEN RUNNING DISCARDED ROLLING_BACK INPUTS_CHOSEN BOTH_ENDED BETWEEN",
    "stepped in place": "INPUTS_CHOSEN RUNNING DISCARDED ROLLING_BACK INPUTS_CHOSEN FIRST_RUN_DONE BOTH_ENDED BETWEEN",
    "caught up": "INPUTS_CHOSEN RUNNING BOTH_ENDED DISCARDED BOTH_ENDED BETWEEN",
    "a point not reached": "INPUTS_CHOSEN START_VISITED ROLLING_BACK START_VISITED RUNNING BOTH_ENDED BETWEEN",
    "unprotected, by time": "INPUTS_CHOSEN RUNNING BETWEEN",
    "a checkpoint for devices differs": "ROLLING_BACK BETWEEN",
}
ILLEGAL = {
    "commit without a run": ("INPUTS_CHOSEN", "BETWEEN"),
    "run without inputs": ("", "RUNNING"),
    "run again without a rollback": ("INPUTS_CHOSEN RUNNING DISCARDED", "RUNNING"),
    "inputs chosen twice": ("INPUTS_CHOSEN START_VISITED", "INPUTS_CHOSEN"),
    "e2 before e1": ("INPUTS_CHOSEN", "COMPARED"),
    "out of a commit": ("INPUTS_CHOSEN RUNNING BOTH_ENDED", "RUNNING"),
    "a part of an instruction is rolled back": ("FRAGMENT", "ROLLING_BACK"),
    "a rollback in a rollback": ("ROLLING_BACK", "ROLLING_BACK"),
}


def fate(way: str, then: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a process whose engine goes that way, and then does something."""
    program = f"""
import resource
from dwcvmm.core.bare import BareCore
from dwcvmm.core.enums import NEVER, Phase, Stop
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
core = BareCore({ELEMENT})
for phase in {way.split()}:
    core.set_phase(Phase[phase])
{then}
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", list(WAYS))
def test_what_happens_to_elements_is_legal(name: str) -> None:
    core = BareCore()
    for phase in WAYS[name].split():
        core.set_phase(Phase[phase])
    assert core.phase is Phase.BETWEEN


@pytest.mark.parametrize("name", list(ILLEGAL))
def test_an_illegal_step_ends_the_process(name: str) -> None:
    way, phase = ILLEGAL[name]
    died = fate(way, f"core.set_phase(Phase.{phase})")
    assert died.returncode == -signal.SIGABRT, died
    before = way.split()[-1] if way else "BETWEEN"
    assert f"element {ELEMENT}, phase {before}: no step leads to {phase}" in died.stderr


@pytest.mark.parametrize(
    ("way", "then", "condition"),
    [
        ("INPUTS_CHOSEN RUNNING DISCARDED", "core.run(0, NEVER)", "dwc_is_stop_requested(e)"),
        ("", "core.rollback(to=Phase.INPUTS_CHOSEN)", "to <= e->phase"),
        ("INPUTS_CHOSEN RUNNING", "core.checkpoint()", "e->phase == DWC_PHASE_BETWEEN"),
        ("INPUTS_CHOSEN RUNNING", "core.write_memory(0, bytes(8))", "e->phase == DWC_PHASE_DISCARDED"),
        ("INPUTS_CHOSEN RUNNING DISCARDED", "core.learn_site()", "e->phase == DWC_PHASE_INPUTS_CHOSEN"),
        ("INPUTS_CHOSEN RUNNING DISCARDED", "core.pass_host_read()", "e->phase == DWC_PHASE_INPUTS_CHOSEN"),
    ],
    ids=[
        "run after a divergence",
        "rollback to inputs that were not chosen",
        "checkpoint during a run",
        "write of guest memory during a run",
        "site after a divergence",
        "passed instruction after a divergence",
    ],
)
def test_the_replicas_must_stand_at_the_last_committed_state(way: str, then: str, condition: str) -> None:
    died = fate(way, then)
    assert died.returncode == -signal.SIGABRT, died
    assert f"element {ELEMENT}" in died.stderr
    assert condition in died.stderr


def test_after_a_requested_stop_there_is_nothing_to_assert() -> None:
    lived = fate(
        "INPUTS_CHOSEN RUNNING DISCARDED",
        "core.request_stop(); assert core.run(0, NEVER) is Stop.REQUESTED",
    )
    assert lived.returncode == 0, lived.stderr
