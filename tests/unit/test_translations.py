"""Wrong translations are put right at the element's end, unless somebody has done so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dwcvmm.core.enums import NEVER
from dwcvmm.faults import injector
from dwcvmm.faults.model import parse
from dwcvmm.faults.translations import Translations


class Memory:
    def __init__(self) -> None:
        self.content = bytearray(range(16))

    def holds(self, gpa: int) -> bool:
        return gpa < len(self.content)

    def byte(self, gpa: int) -> int:
        return self.content[gpa]

    def upset(self, gpa: int, value: int) -> None:
        self.content[gpa] = value

    def read(self, gpa: int, length: int) -> bytes:
        return bytes(self.content[gpa : gpa + length])


def machine(ram: Memory, emptied: list[int]) -> Any:
    """An engine with what is needed of it. Replica B has `ram`."""
    return SimpleNamespace(
        in_place=False,
        core=SimpleNamespace(committed=5, replicas=[None, SimpleNamespace(ram=ram)]),
        replicas=SimpleNamespace(vcpus=[None, None], empty_tlb=emptied.append),
    )


@pytest.mark.parametrize("visit", ["at_end", "at_start"])
def test_before_anything_is_compared_or_run_again(monkeypatch: pytest.MonkeyPatch, visit: str) -> None:
    ram = Memory()
    engine = machine(ram, [])
    translations = Translations(engine)
    monkeypatch.setattr(injector, "Translations", lambda engine: translations)
    visitor = injector.Injector(engine, [])
    assert visitor.visit_from == NEVER
    translations.make_wrong(1, parse("5:e2:ram+0x8:5"))
    assert visitor.visit_from == 5, "its end is visited"
    getattr(visitor, visit)()
    assert ram.content == bytearray(range(16))
    assert visitor.visit_from == NEVER


@pytest.mark.parametrize("meanwhile", ["nothing", "put right", "another bit"])
def test_put_right(meanwhile: str) -> None:
    ram = Memory()
    emptied: list[int] = []
    translations = Translations(machine(ram, emptied))
    translations.make_wrong(1, parse("5:e2:ram+0x8:5"))
    assert translations
    assert ram.content[8] == 8 ^ 0x20
    if meanwhile != "nothing":
        ram.content[8] ^= 0x20 if meanwhile == "put right" else 0x40  # as the CPU sets a dirty bit
    translations.put_right()
    assert not translations
    assert ram.content[8] == (8 ^ 0x40 if meanwhile == "another bit" else 8)
    assert emptied == [1, 1]
