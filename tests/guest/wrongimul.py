"""A planted fault of a CPU: on the second one a bit of IMUL's result is another one, in an element's third turn."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from dwcvmm.core.enums import PAGE
from dwcvmm.faults.flip import flip
from dwcvmm.faults.model import parse
from dwcvmm.pc.replay import Replayer
from dwcvmm.pc.stepped import Stepped

CODE = 0x100000
IMUL = b"\x48\x69\xdb"  # imul rbx, rbx, imm32
IMUL_BYTES, WRONG_TURN, MOST_STEPS = 7, 3, 10_000


def check_that_it_is_named(path: Path, element: int | None = None) -> None:
    """By single steps through an element of a recording of guest `ports`. None: the recording is a case."""
    cpus = sorted(os.sched_getaffinity(0))
    pair = cpus[0], cpus[-1]
    replayer = Replayer(path)
    behind = CODE + replayer.memory.read(CODE, PAGE).index(IMUL) + IMUL_BYTES
    turns: list[int] = []

    def plant(execution: int, executed: int) -> None:
        if execution == 1 and replayer.registers()["rip"] == behind:
            turns.append(executed)
            if len(turns) == WRONG_TURN:
                assert flip(replayer.core, replayer.replicas.vcpus[0], 0, parse("1:e1:rbx:17"))

    with closing(replayer):
        replayer.start()
        number = element or replayer.case
        assert number
        found = Stepped(replayer, number, plant).compare(pair, MOST_STEPS)
    assert (found.instructions, found.cpus) == (turns[WRONG_TURN - 1] - 1, pair)
    assert found.first and found.second
    assert "imul rbx, rbx, 0x5851f42d" in found.first.text == found.second.text
    ((name, (a, b)),) = found.differing.items()
    assert name == "rbx" and a is not None and b is not None and a ^ b == 1 << 17
