"""Single steps (cbits/element/steps.c): each function answers how many instructions it were, or None if a rollback
has to come next."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import lib
from dwcvmm.kvm.ioctl import check


def run_steps(engine: Any, index: int, limit: int) -> int | None:
    """Lead replica `index` from the last committed state `limit` instructions on, or to before the first that cannot be
    stepped. None: the run met an exit, or an instruction that single steps change.
    """
    return _done(engine, lib.dwc_step_until(engine, index, limit, 0))


def run_element(engine: Any, limit: int, to_interruptible: bool = False) -> int | None:
    """The same with both replicas, which is an element then: compare and commit it. None: nothing is committed.

    `to_interruptible`: end as soon as an interrupt can be injected.
    """
    return _done(engine, lib.dwc_step_element(engine, limit, to_interruptible))


def catch_up(engine: Any, limit: int) -> int | None:
    """Two replicas ended at different instructions, and nobody knows which one is behind: step one,
    then the other, until all their registers agree. In place only e2 can be stepped: it is what the VM has run last.

    Equal registers are not proof: memory has to be compared as at any end.
    """
    return _done(engine, lib.dwc_step_together(engine, limit))


def _done(engine: Any, result: int) -> int | None:
    return int(engine.steps.done) if check("single step", result) == lib.DWC_STEPS_DONE else None
