"""A conversation with gdb: what each packet asks of the target, and the answer (GDB's manual, E.2 to E.4). It knows
neither sockets nor machines.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from contextlib import suppress

from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.errors import DwcVmmError
from dwcvmm.gdb.description import Description, Mode, will_be_long
from dwcvmm.gdb.packets import MOST_BYTES
from dwcvmm.gdb.registers import NotSettableError
from dwcvmm.gdb.target import TRAPPED, Ended, EndedError, Stop, Target, TargetError, Way

OK, UNKNOWN, WRONG, REFUSED = b"OK", b"", b"E16", b"E0e"  # errors: EINVAL, EFAULT in hexadecimal
THREAD = b"1"
SUPPORTED = f"PacketSize={MOST_BYTES:x};QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+"
REVERSE = ";ReverseStep+;ReverseContinue+"
POINTS = {b"0": PointKind.EXECUTE, b"1": PointKind.EXECUTE, b"2": PointKind.WRITE, b"4": PointKind.ACCESS}
WATCHES = {PointKind.WRITE: "watch", PointKind.ACCESS: "awatch"}
WATCHED = (1, 2, 4, 8)  # bytes
WAYS = {b"c": Way.CONTINUE, b"C": Way.CONTINUE, b"s": Way.STEP, b"S": Way.STEP}
BACKWARDS = {b"bc": Way.BACK, b"bs": Way.STEP_BACK}
NUMBER = re.compile(rb"[0-9a-fA-F]{1,16}")
ALL_64_BITS = (1 << 64) - 1


class MalformedError(ValueError):
    """A packet that is none."""


def number(text: bytes) -> int:
    if not NUMBER.fullmatch(text):
        raise MalformedError
    return int(text, 16)


def unhex(text: bytes) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError as error:
        raise MalformedError from error


def _pair(text: bytes, separator: bytes = b",") -> tuple[int, int]:
    first, found, second = text.partition(separator)
    if not found:
        raise MalformedError
    return number(first), number(second)


class Conversation:
    """`running`: the guest goes on, and gdb waits for the news of its stop. `over`: gdb has ended the conversation."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.running = self.over = False
        self.acknowledges = True
        self._description: Description | None = None
        self._told_of_mode = False
        self._remarks: list[str] = []
        self._by_letter: dict[bytes, Callable[[bytes], bytes | None]] = {
            b"?": lambda _: self._tell(Stop(TRAPPED)),
            b"g": self._read_all,
            b"G": self._write_all,
            b"p": self._read_register,
            b"P": self._write_register,
            b"m": self._read_memory,
            b"M": self._write_hex,
            b"X": self._write_binary,
            b"Z": self._insert,
            b"z": self._remove,
            b"c": self._go,
            b"C": self._go,
            b"s": self._go,
            b"S": self._go,
            b"b": self._go_back,
            b"H": lambda _: OK,
            b"T": lambda _: OK,
            b"D": self._detach,
            b"k": self._kill,
            b"q": self._query,
            b"Q": self._set,
            b"v": self._verbose,
        }

    def answer(self, packet: bytes) -> bytes | None:
        """The answer to a packet, which may be anything. None: there is none, or it comes when the guest stands."""
        answer = self._by_letter.get(packet[:1])
        if not answer:
            return UNKNOWN
        try:
            return answer(packet)
        except MalformedError:
            return WRONG
        except (TargetError, NotSettableError):
            return REFUSED
        except EndedError:  # how is told when it is known
            self.running = True
            return self.news()

    def news(self) -> bytes | None:
        """What is to be told of a guest that has gone on: that it stands, or has ended. None: it goes on."""
        try:
            why = self._target.why()
        except EndedError:
            why = Ended(0)
        return self._tell(why) if why else None

    def take_remarks(self) -> list[bytes]:
        """Packets for gdb's user, which go before the news of a stop that gdb waits for."""
        remarks, self._remarks = self._remarks, []
        return [b"O" + binascii.hexlify(remark.encode()) for remark in remarks]

    def _note_mode(self) -> None:
        """Once, say so if the guest stands in another mode than the one that gdb knows."""
        if self._told_of_mode or not self._description:
            return
        with suppress(DwcVmmError):
            mode = Mode.of(self._target.registers())
            if mode is not self._description.mode:
                self._told_of_mode = True
                self._remarks.append(
                    f"The guest is in {mode.name.lower()} mode now, and gdb shows registers and code as those of "
                    f"{self._description.mode.name.lower()} mode. To see others: disconnect, and connect again.\n"
                )

    def _tell(self, stop: Stop | Ended) -> bytes:
        if self.running and isinstance(stop, Stop):
            self._remarks += [stop.text] if stop.text else []
            self._note_mode()
        self.running = False
        if isinstance(stop, Ended):
            self.over = True
            return b"W%02x" % (stop.code & 0xFF)
        reason = ""
        if stop.at_start:
            reason = "replaylog:begin;"
        elif stop.at_end:
            reason = "replaylog:end;"
        elif stop.point and stop.point.kind in WATCHES:
            reason = f"{WATCHES[stop.point.kind]}:{stop.point.linear:x};"
        elif stop.point:
            reason = "swbreak:;" if stop.software else "hwbreak:;"
        return f"T{stop.signal:02x}thread:1;{reason}".encode()

    # registers

    def description(self) -> Description:
        """The mode that the guest is in; or long mode, if a 64-bit Linux has been started and will be there soon, as
        breakpoints at its addresses are wanted from the start on.
        """
        if not self._description:
            now = self._target.registers()
            mode = Mode.of(now)
            if mode is Mode.PROTECTED:
                with suppress(TargetError):
                    mode = Mode.LONG if will_be_long(now, self._target.read) else mode
            self._description = Description(mode, self._target.has_avx)
        return self._description

    def _read_all(self, packet: bytes) -> bytes:
        return binascii.hexlify(self.description().all_values(self._target.registers()))

    def _write_all(self, packet: bytes) -> bytes:
        now = self._target.registers()
        self.description().set_all(now, unhex(packet[1:]))
        self._target.set_registers(now)
        return OK

    def _register(self, text: bytes) -> int:
        which = number(text)
        if which >= len(self.description().registers):
            raise MalformedError
        return which

    def _read_register(self, packet: bytes) -> bytes:
        which = self._register(packet[1:])
        return binascii.hexlify(self.description().value(which, self._target.registers()))

    def _write_register(self, packet: bytes) -> bytes:
        which, _, value = packet[1:].partition(b"=")
        now, index = self._target.registers(), self._register(which)
        self.description().set_value(index, now, unhex(value))
        self._target.set_registers(now)
        return OK

    # memory

    def _read_memory(self, packet: bytes) -> bytes:
        linear, length = _pair(packet[1:])
        data = self._target.read(linear, min(length, MOST_BYTES // 2))
        return binascii.hexlify(data) if data or not length else REFUSED

    def _write_hex(self, packet: bytes) -> bytes:
        place, _, text = packet[1:].partition(b":")
        return self._write(place, unhex(text))

    def _write_binary(self, packet: bytes) -> bytes:
        place, _, data = packet[1:].partition(b":")
        return self._write(place, data)

    def _write(self, place: bytes, data: bytes) -> bytes:
        linear, length = _pair(place)
        if length != len(data):
            raise MalformedError
        if data:
            self._target.write(linear, data)
        return OK

    # points

    def _point(self, packet: bytes) -> tuple[Point, bool] | None:
        kind, _, place = packet[1:].partition(b",")
        if kind not in POINTS:
            return None
        linear, size = _pair(place.partition(b";")[0])
        if POINTS[kind] is PointKind.EXECUTE:
            return Point(PointKind.EXECUTE, linear), kind == b"0"
        if size not in WATCHED or linear % size:
            raise TargetError("a watchpoint has 1, 2, 4 or 8 bytes, at a multiple of that")
        return Point(POINTS[kind], linear, size), False

    def _insert(self, packet: bytes) -> bytes:
        point = self._point(packet)
        if not point:
            return UNKNOWN
        self._target.insert(*point)
        return OK

    def _remove(self, packet: bytes) -> bytes:
        point = self._point(packet)
        if not point:
            return UNKNOWN
        self._target.remove(point[0])
        return OK

    # going on

    def _go(self, packet: bytes) -> bytes | None:
        """c, s: from another address, if there is one. C, S: the guest gets no signals."""
        way, where = WAYS[packet[:1]], packet[1:]
        if packet[:1] in (b"C", b"S"):
            where = packet.partition(b";")[2]
        if where:
            now, linear = self._target.registers(), number(where)
            now.state.regs.rip = (linear - now.state.sregs.cs.base) & ALL_64_BITS
            self._target.set_registers(now)
        return self._start(way)

    def _go_back(self, packet: bytes) -> bytes | None:
        if packet not in BACKWARDS or not self._target.reverses:
            return UNKNOWN
        return self._start(BACKWARDS[packet])

    def _start(self, way: Way) -> bytes | None:
        self.running = True
        try:
            stop = self._target.go(way)
        except BaseException:
            self.running = False
            raise
        return self._tell(stop) if stop else None

    def _verbose(self, packet: bytes) -> bytes | None:
        if packet == b"vCont?":
            return b"vCont;c;C;s;S"
        if packet.startswith(b"vCont;"):
            action = packet[len(b"vCont;") :].partition(b";")[0].partition(b":")[0]
            if action[:1] not in WAYS:
                raise MalformedError
            return self._start(WAYS[action[:1]])
        if packet.startswith(b"vKill"):
            self._kill(packet)
            return OK
        return UNKNOWN

    # the conversation's end

    def _detach(self, packet: bytes) -> bytes:
        self.over = True
        return OK

    def _kill(self, packet: bytes) -> None:
        self.over = True
        self._target.kill()

    # what else can be asked

    def _query(self, packet: bytes) -> bytes | None:
        name = packet.partition(b":")[0]
        if name == b"qSupported":
            return (SUPPORTED + (REVERSE if self._target.reverses else "")).encode()
        if packet.startswith(b"qXfer:features:read:"):
            return self._describe(packet)
        if packet.startswith(b"qRcmd,"):
            return self._monitor(unhex(packet[len(b"qRcmd,") :]))
        answers = {b"qAttached": b"1", b"qC": b"QC" + THREAD, b"qfThreadInfo": b"m" + THREAD, b"qsThreadInfo": b"l"}
        return OK if name == b"qSymbol" else answers.get(name, UNKNOWN)

    def _describe(self, packet: bytes) -> bytes:
        annex, _, place = packet[len(b"qXfer:features:read:") :].partition(b":")
        if annex != b"target.xml":
            return b"E00"
        text = self.description().xml().encode()
        at, length = _pair(place)
        piece = text[at : at + length]
        return (b"l" if at + length >= len(text) else b"m") + piece

    def _monitor(self, words: bytes) -> bytes:
        try:
            answer = self._target.monitor(words.decode(errors="replace"))
        except TargetError as error:
            answer = f"{error}\n"
        return binascii.hexlify(answer.encode()[: MOST_BYTES // 2 - 1]) or OK

    def _set(self, packet: bytes) -> bytes:
        if packet != b"QStartNoAckMode":
            return UNKNOWN
        self.acknowledges = False
        return OK
