"""The 8042, the PC's keyboard controller, with nothing plugged into it (IBM PS/2 technical reference, "Keyboard and
Auxiliary Device Controller"), and port 0x92 beside it.

A byte sent to the keyboard or the mouse is answered at once by RESEND with the time-out bit, as from a controller
that has given up waiting for the device: so a driver learns without waiting that nothing is plugged in. All other
commands are answered as by QEMU's controller; those that QEMU does not answer as IBM documents them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from dwcvmm.saved.form import KeyboardForm

KEYBOARD_IRQ, MOUSE_IRQ = 1, 12
A20, NOT_RESET = 1 << 1, 1 << 0  # of the output port


class Output(NamedTuple):
    """A byte for the guest. `mouse`: from the mouse's side; `timed_out`: no device has answered."""

    value: int
    mouse: bool = False
    timed_out: bool = False


class KeyboardController:
    """Offset 0 data, 4 command and status. `set_irq` gets the levels of IRQ 1 and 12.

    The A20 gate can be set and read back, but has no effect: a virtual machine has no such line.
    """

    OUTPUT_FULL, SYSTEM, COMMAND, UNLOCKED, MOUSE_FULL, TIMED_OUT = 0x01, 0x04, 0x08, 0x10, 0x20, 0x40  # status
    KEYBOARD_INTERRUPT, MOUSE_INTERRUPT, NO_KEYBOARD, NO_MOUSE = 0x01, 0x02, 0x10, 0x20  # command byte
    OUTPUT_PORT_ONES, OUTPUT_PORT_KEYBOARD, OUTPUT_PORT_MOUSE = 0xCC, 0x10, 0x20
    RESEND = 0xFE
    # self-test passed; interfaces tested, without error; no password; input port: not locked; test inputs: clocks high
    ANSWERS: ClassVar = {0xAA: 0x55, 0xA9: 0x00, 0xAB: 0x00, 0xA4: 0xF1, 0xC0: 0x80, 0xE0: 0x03}
    MODES: ClassVar = {0xA7: (NO_MOUSE, 0), 0xA8: (0, NO_MOUSE), 0xAD: (NO_KEYBOARD, 0), 0xAE: (0, NO_KEYBOARD)}
    READ_MEMORY, WRITE_MEMORY, MEMORY_BYTES = 0x20, 0x60, 32  # the command byte is its first
    READ_OUTPUT_PORT, WRITE_OUTPUT_PORT = 0xD0, 0xD1
    WRITE_KEYBOARD_OUTPUT, WRITE_MOUSE_OUTPUT, WRITE_MOUSE = 0xD2, 0xD3, 0xD4
    A20_OFF, A20_ON, PULSE = 0xDD, 0xDF, 0xF0

    def __init__(self, on_reset: Callable[[], None], set_irq: Callable[[int, bool], None]) -> None:
        self._on_reset, self._set_irq = on_reset, set_irq
        self._outputs: list[Output] = []  # the byte in the output buffer, and one that waits for it
        self._memory = bytearray(self.MEMORY_BYTES)
        self._memory[0] = self.SYSTEM | self.KEYBOARD_INTERRUPT | self.MOUSE_INTERRUPT
        self._command = 0  # a command that waits for its data
        self.a20 = True

    def read(self, offset: int, size: int) -> int:
        if offset == 4:
            return self._status()
        if not self._outputs:
            return 0
        value = self._outputs.pop(0).value
        self._lower()  # the byte that waited makes an edge of its own
        self._update()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 4:
            self._obey(value)
        else:
            command, self._command = self._command, 0
            self._take(command, value)
        self._update()

    def saved(self, fast_reset: int) -> KeyboardForm:
        """`fast_reset`: of port 0x92."""
        return KeyboardForm(
            outputs=[(value, mouse, timed_out) for value, mouse, timed_out in self._outputs],
            memory=bytes(self._memory),
            command=self._command,
            a20=self.a20,
            fast_reset=fast_reset,
        )

    def restore(self, form: KeyboardForm) -> None:
        """The levels of its interrupt lines are the chipset's. Raises ValueError."""
        if len(form.memory) != self.MEMORY_BYTES:
            raise ValueError(f"a keyboard controller with {len(form.memory)} bytes")
        self._outputs = [Output(*output) for output in form.outputs]
        self._memory[:] = form.memory
        self._command, self.a20 = form.command, form.a20

    def _status(self) -> int:
        status = self.SYSTEM | self.COMMAND | self.UNLOCKED
        if self._outputs:
            _, mouse, timed_out = self._outputs[0]
            status |= self.OUTPUT_FULL | mouse * self.MOUSE_FULL | timed_out * self.TIMED_OUT
        return status

    def _obey(self, command: int) -> None:
        self._command = 0
        if command in self.ANSWERS:
            self._put(Output(self.ANSWERS[command]))
        elif command in self.MODES:
            on, off = self.MODES[command]
            self._memory[0] = self._memory[0] & ~off | on
        elif self.READ_MEMORY <= command < self.READ_MEMORY + self.MEMORY_BYTES:
            self._put(Output(self._memory[command - self.READ_MEMORY]))
        elif command == self.READ_OUTPUT_PORT:
            self._put(Output(self._output_port()))
        elif command in (self.A20_OFF, self.A20_ON):
            self.a20 = command == self.A20_ON
        elif command >= self.PULSE:
            if not command & NOT_RESET:
                self._on_reset()
        else:
            self._command = command

    def _take(self, command: int, value: int) -> None:
        """Take a byte written to the data port: the data of a command, or for the keyboard."""
        if self.WRITE_MEMORY <= command < self.WRITE_MEMORY + self.MEMORY_BYTES:
            self._memory[command - self.WRITE_MEMORY] = value
        elif command == self.WRITE_OUTPUT_PORT:
            self.a20 = bool(value & A20)
            if not value & NOT_RESET:
                self._on_reset()
        elif command in (self.WRITE_KEYBOARD_OUTPUT, self.WRITE_MOUSE_OUTPUT):
            self._put(Output(value, mouse=command == self.WRITE_MOUSE_OUTPUT))
        elif command == self.WRITE_MOUSE:
            self._put(Output(self.RESEND, mouse=True, timed_out=True))
        elif not command:
            self._memory[0] &= ~self.NO_KEYBOARD
            self._put(Output(self.RESEND, timed_out=True))

    def _output_port(self) -> int:
        port = self.OUTPUT_PORT_ONES | NOT_RESET | (A20 if self.a20 else 0)
        if self._outputs:
            port |= self.OUTPUT_PORT_MOUSE if self._outputs[0].mouse else self.OUTPUT_PORT_KEYBOARD
        return port

    def _put(self, output: Output) -> None:
        self._outputs[1:] = []  # the latest byte replaces the one that waits
        self._outputs.append(output)

    def _lower(self) -> None:
        self._set_irq(KEYBOARD_IRQ, False)
        self._set_irq(MOUSE_IRQ, False)

    def _update(self) -> None:
        mode = self._memory[0]
        mouse = bool(self._outputs) and self._outputs[0].mouse
        keyboard = bool(self._outputs) and not mouse and not mode & self.NO_KEYBOARD
        self._set_irq(KEYBOARD_IRQ, keyboard and bool(mode & self.KEYBOARD_INTERRUPT))
        self._set_irq(MOUSE_IRQ, mouse and bool(mode & self.MOUSE_INTERRUPT))


class SystemControl:
    """Port 0x92 of the PS/2: the A20 gate, and a reset when bit 0 rises."""

    def __init__(self, keyboard: KeyboardController, on_reset: Callable[[], None]) -> None:
        self._keyboard, self._on_reset = keyboard, on_reset
        self.fast_reset = 0

    def read(self, offset: int, size: int) -> int:
        return self.fast_reset | (A20 if self._keyboard.a20 else 0)

    def write(self, offset: int, size: int, value: int) -> None:
        if value & ~self.fast_reset & 1:
            self._on_reset()
        self.fast_reset = value & 1
        self._keyboard.a20 = bool(value & A20)
