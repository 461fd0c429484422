"""What the injector does at its visits, without a guest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dwcvmm.faults.injector import Became, Injector
from dwcvmm.faults.model import parse


def test_in_place_a_fault_of_e2_stays_in_its_element() -> None:
    """Element 5 is cut in e1, and single steps end it: there is no visit between its runs."""
    core = SimpleNamespace(committed=5, replicas=[])
    engine: Any = SimpleNamespace(core=core, in_place=True)
    injector = Injector(engine, [parse("5:e2:rbx:3")])
    injector.at_start()
    core.committed = 6
    assert injector.visit_from <= 6, "it must learn that element 5 is over"
    injector.at_start()
    injector.between_runs()
    assert [(each.became, each.element) for each in injector.injections] == [(Became.NOT_REACHED, 6)]
