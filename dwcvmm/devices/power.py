"""Ways for a guest to end: ACPI's PM1a control, the keyboard controller's reset, the debug exit."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

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
        return (self._value | SCI_EN) >> 8 * offset  # there is no mode but ACPI's

    def write(self, offset: int, size: int, value: int) -> None:
        self._value = _with_bytes(self._value, offset, size, value)
        if self._value & SLP_EN:
            self._on_poweroff()


class KeyboardController:
    """8042 without keyboard or mouse: answers the probe, and resets the machine. Offset 0 data, 4 command.

    The keyboard fails its test (clock line stuck low): a BIOS need not wait a second for it.
    """

    READY = 0x1C
    OUTPUT_FULL, AUX_OUTPUT_FULL = 0x01, 0x20
    ANSWERS: ClassVar = {0xAA: 0x55, 0xAB: 0x01, 0xA9: 0x00, 0x20: 0x00}
    PULSE_RESET, WRITE_OUTPUT_PORT, WRITE_AUX_OUTPUT = 0xFE, 0xD1, 0xD3

    def __init__(self, on_reset: Callable[[], None]) -> None:
        self._on_reset = on_reset
        self._output: int | None = None
        self._aux = False  # the output is from the mouse's side
        self._command = 0

    def read(self, offset: int, size: int) -> int:
        if offset == 4:
            if self._output is None:
                return self.READY
            return self.READY | self.OUTPUT_FULL | (self.AUX_OUTPUT_FULL if self._aux else 0)
        value, self._output = self._output, None
        return value or 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            if self._command == self.WRITE_OUTPUT_PORT and not value & 1:
                self._on_reset()
            elif self._command == self.WRITE_AUX_OUTPUT:  # Linux polls 10,000 times for this loop of a byte
                self._output, self._aux = value, True
            self._command = 0
        elif value == self.PULSE_RESET:
            self._on_reset()
        else:
            self._command = value
            if value in self.ANSWERS:
                self._output, self._aux = self.ANSWERS[value], False


class DebugExit:
    """Port 0xF4: the guest ends with a status of its own, 0 for success."""

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self._on_exit(value)
