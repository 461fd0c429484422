"""Wrong translations: for one element a page-table entry of one replica is wrong, as if its TLB had a wrong entry.

The entry is changed in RAM, and the TLB emptied, so that the next access takes it from there; at the element's end,
before anything is compared, it is put right again. What the guest has done by it stays, and is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dwcvmm.faults.flip import flip
from dwcvmm.faults.model import Fault

if TYPE_CHECKING:
    from dwcvmm.element.engine import Engine


@dataclass
class _Wrong:
    index: int
    fault: Fault  # located in RAM
    right: bytes  # what was there


class Translations:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._core = engine, engine.core
        self._wrong: list[_Wrong] = []

    def __bool__(self) -> bool:
        return bool(self._wrong)

    def make_wrong(self, index: int, fault: Fault) -> None:
        """Apply a fault that is located in RAM. Raises KvmError."""
        self._wrong.append(_Wrong(index, fault, self._there(index, fault)))
        flip(self._core, self._engine.replicas.vcpus[index], index, fault)
        self._engine.replicas.empty_tlb(index)

    def put_right(self) -> None:
        """All of them; but an entry that the guest or a rollback has put right is left as it is."""
        for wrong in reversed(self._wrong):
            differs = int.from_bytes(self._there(wrong.index, wrong.fault), "little")
            differs ^= int.from_bytes(wrong.right, "little")
            if differs & wrong.fault.mask == wrong.fault.mask:
                flip(self._core, self._engine.replicas.vcpus[wrong.index], wrong.index, wrong.fault)
            self._engine.replicas.empty_tlb(wrong.index)
        self._wrong.clear()

    def _there(self, index: int, fault: Fault) -> bytes:
        return self._core.replicas[index].ram.read(int(fault.target.where), 8)
