"""The escape key of the interactive console: Ctrl-a and a letter, as in QEMU and screen."""

from __future__ import annotations

from enum import Enum

ESCAPE = 0x01  # Ctrl-a

HELP = """\
Ctrl-a x       end the guest and leave
Ctrl-a c       a Python shell on the stopped machine (end it with Ctrl-d)
Ctrl-a p       press the power button
Ctrl-a s       status
Ctrl-a w       save the machine (--save-to)
Ctrl-a d       dump the machine (--dump-to)
Ctrl-a h       this help
Ctrl-a Ctrl-a  send Ctrl-a to the guest
"""


class Key(Enum):
    EXIT = "x"
    SHELL = "c"
    POWER = "p"
    STATUS = "s"
    SAVE = "w"
    DUMP = "d"
    HELP = "h"


class KeyParser:
    """Splits typed bytes into input for the guest and commands; a Ctrl-a at the end is remembered."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, data: bytes) -> tuple[bytes, list[Key]]:
        """Returns (bytes for the guest, commands in order). An unknown letter after Ctrl-a is dropped."""
        out = bytearray()
        commands: list[Key] = []
        for byte in data:
            if not self._escaped:
                self._escaped = byte == ESCAPE
                if not self._escaped:
                    out.append(byte)
                continue
            self._escaped = False
            if byte == ESCAPE:
                out.append(byte)
            elif chr(byte) in {key.value for key in Key}:
                commands.append(Key(chr(byte)))
        return bytes(out), commands
