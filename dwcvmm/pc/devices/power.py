"""The ways in which a guest can end the run: ACPI's PM1a control, the chip set's reset, the debug exit. Resets by the
keyboard controller are in keyboard.py.
"""

from __future__ import annotations

from collections.abc import Callable

SLP_EN, SCI_EN = 1 << 13, 1 << 0  # ACPI 4.8.4.2.1
RESET_CPU = 1 << 2


def _with_bytes(register: int, offset: int, size: int, value: int) -> int:
    mask = ((1 << 8 * size) - 1) << 8 * offset
    return register & ~mask | value << 8 * offset & mask


class PowerEvents:
    """PM1a_EVT, 16 bits of status and 16 of enables (ACPI 4.8.4.1). Nothing here raises an event."""

    def __init__(self) -> None:
        self._enabled = 0

    def read(self, offset: int, size: int) -> int:
        return self._enabled << 16 >> 8 * offset

    def write(self, offset: int, size: int, value: int) -> None:
        both = _with_bytes(self._enabled << 16, offset, size, value)
        self._enabled = both >> 16 & 0xFFFF


class ResetControl:
    """The reset register of a PC's chip set, port 0xCF9."""

    def __init__(self, on_reset: Callable[[], None]) -> None:
        self._on_reset = on_reset
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        self._value = value & ~RESET_CPU
        if value & RESET_CPU:
            self._on_reset()


class PowerControl:
    """PM1a_CNT, 16 bits, as on QEMU's machines at 0x604; a byte write to its upper half counts."""

    def __init__(self, on_poweroff: Callable[[], None]) -> None:
        self._on_poweroff = on_poweroff
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        return (self._value | SCI_EN) >> 8 * offset  # the machine is always in ACPI mode

    def write(self, offset: int, size: int, value: int) -> None:
        self._value = _with_bytes(self._value, offset, size, value)
        if self._value & SLP_EN:
            self._on_poweroff()


class DebugExit:
    """Port 0xF4: the guest ends with a status of its own, 0 for success."""

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self._on_exit(value)
