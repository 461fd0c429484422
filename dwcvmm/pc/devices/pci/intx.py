"""Interrupt pins of PCI slots: levels; several slots share a line."""

from __future__ import annotations

from collections.abc import Callable

from dwcvmm.pc import layout


class IntxLines:
    """Pin A of slot s is GSI 16 + s mod 4, and an ISA interrupt as well; `set_gsi(gsi, level)` drives one."""

    def __init__(self, set_gsi: Callable[[int, bool], None]) -> None:
        self._set_gsi = set_gsi
        self._asserting: set[int] = set()  # slots

    @staticmethod
    def isa_irq(slot: int) -> int:
        return layout.PCI_ISA_IRQS[slot % len(layout.PCI_ISA_IRQS)]

    @staticmethod
    def gsi(slot: int) -> int:
        return layout.PCI_INTX[slot % len(layout.PCI_INTX)]

    def set(self, slot: int, asserted: bool) -> None:
        if asserted == (slot in self._asserting):
            return
        self._asserting ^= {slot}
        for line in (self.gsi, self.isa_irq):
            self._set_gsi(line(slot), any(line(other) == line(slot) for other in self._asserting))
