"""What is tested inside a testbed: its PMU, under settings that together use each deviation; guests on kvm_intel, with
slices that end by a noisy counter."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PYTEST_INSIDE, ROOT

PMU = "tests/nested/test_pmu.py"
# all guests take too long in the emulator under a noisy counter
SOME_GUESTS = ("tests/guest/test_tokens.py", "-k", "test_pmu or compute or rep or rdtsc3 or smc or sways or mxcsr")
# entry differs from interrupt, so that one counted as the other is seen
# elements that were ended by the counter
RECORDINGS = "tests/guest/test_recordings.py::test_every_element_is_replayed"
REPLAYED = tuple(f"{RECORDINGS}[{guest}-sequential]" for guest in ("memory", "rep", "smc", "polls"))
REPLAYED += ("tests/guest/test_recordings.py::test_elements_that_end_in_loops_are_replayed",)
SETTINGS = {
    "exact": (PMU, "tests/guest/test_ticks.py", *REPLAYED),
    "skid=40": (PMU,),
    "skid=random:128,interrupt=1,fault=random:5,entry=3": (PMU, *SOME_GUESTS),
}


@pytest.mark.timeout(3600)  # the first start builds the emulator
@pytest.mark.skipif("DWCVMM_TESTBED" in os.environ, reason="inside a testbed already")
@pytest.mark.skipif(
    os.geteuid() != 0 and not (shutil.which("xorriso") and shutil.which("g++")),
    reason="install what scripts/testbeds/intel.sh needs, or be root",
)
@pytest.mark.parametrize("settings", SETTINGS)
def test_in_intel_pmu(settings: str, guests: Path) -> None:
    command: list[str | Path] = [
        *(ROOT / "scripts" / "testbed", "intel-pmu", "--timeout", "2700", "--pmu", settings, "--"),
        *PYTEST_INSIDE,
        *SETTINGS[settings],
    ]
    environment = os.environ | {"DWCVMM_TESTBED_GUESTS": ""}  # but for the tiny ones
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-3000:]
    # a run that skips everything is not one that passes
    assert " passed" in result.stdout and "skipped" not in result.stdout, result.stdout
