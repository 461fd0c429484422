"""Wrong translations are put right at the element's end, unless somebody has done so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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


@pytest.mark.parametrize("meanwhile", ["nothing", "put right", "another bit"])
def test_put_right(meanwhile: str) -> None:
    ram = Memory()
    emptied: list[int] = []
    engine: Any = SimpleNamespace(
        core=SimpleNamespace(replicas=[None, SimpleNamespace(ram=ram)]),
        replicas=SimpleNamespace(vcpus=[None, None], empty_tlb=emptied.append),
    )
    translations = Translations(engine)
    translations.make_wrong(1, parse("5:e2:ram+0x8:5"))
    assert translations
    assert ram.content[8] == 8 ^ 0x20
    if meanwhile != "nothing":
        ram.content[8] ^= 0x20 if meanwhile == "put right" else 0x40  # as the CPU sets a dirty bit
    translations.put_right()
    assert not translations
    assert ram.content[8] == (8 ^ 0x40 if meanwhile == "another bit" else 8)
    assert emptied == [1, 1]
