"""Every example of docs/api.md, run as it stands, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, needs_kvm

PAGE = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PRINTS = {  # what an example prints, by a word of its code
    "keep_console=True) as machine:\n    result": "poweroff 0 ",
    "machine.inject": "2:e2:rbx:3 was found in element 2 and undone: 1 rollback",
    "machine.step()": "rbx: ",
    "machine.pause()": "0 1048576",
    "class Log": "element 5: injected, ",
    "no-such-kernel": "no-such-kernel: No such file",
}


def test_there_are_examples_of_all_that_is_promised() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == 11
    for word in PRINTS:
        assert sum(word in example for example in EXAMPLES) == 1, word


@needs_kvm
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, guests: Path) -> None:
    assert guests == ROOT / "build" / "guests"
    example = EXAMPLES[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for word, printed in PRINTS.items():
        assert word not in example or printed in done.stdout, done.stdout
