"""What gdb is answered, packet by packet, about a guest that is made up."""

from __future__ import annotations

import pytest

from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.core.state import State
from dwcvmm.gdb.conversation import Conversation
from dwcvmm.gdb.description import CR0_PE, EFER_LMA
from dwcvmm.gdb.registers import Registers
from dwcvmm.gdb.target import INTERRUPTED, Ended, EndedError, Stop, TargetError, Way


class Guest:
    """One page of memory; where it stands next is in `stops`. What was asked is in `done`."""

    has_avx = False

    def __init__(self, long_mode: bool = True, reverses: bool = False) -> None:
        self.reverses = reverses
        self.state = State()
        self.set_mode(long_mode)
        self.memory = bytearray(b"guest".ljust(4096, b"\0"))
        self.stops: list[Stop | Ended | None] = []
        self.done: list[object] = []

    def set_mode(self, long_mode: bool) -> None:
        self.state.sregs.cr0, self.state.sregs.efer = CR0_PE, EFER_LMA if long_mode else 0

    def registers(self) -> Registers:
        return Registers(self.state, {})

    def set_registers(self, registers: Registers) -> None:
        self.state = registers.changed()

    def read(self, linear: int, length: int) -> bytes:
        return bytes(self.memory[linear : linear + length])

    def write(self, linear: int, data: bytes) -> None:
        if linear >= len(self.memory):
            raise TargetError("not mapped")
        self.memory[linear : linear + len(data)] = data

    def insert(self, point: Point, software: bool) -> None:
        self.done.append((point, software))

    def remove(self, point: Point) -> None:
        self.done.append(point)

    def go(self, way: Way) -> Stop | None:
        self.done.append(way)
        return self.why()  # type: ignore[return-value]

    def why(self) -> Stop | Ended | None:
        return self.stops.pop(0) if self.stops else None

    def interrupt(self) -> None:
        self.done.append("interrupt")

    def monitor(self, words: str) -> str:
        if words != "help":
            raise TargetError("no such command")
        return "some help\n"

    def attach(self) -> None:
        """It stands."""

    def release(self) -> None:
        """It goes on."""

    def kill(self) -> None:
        self.done.append("kill")


def test_what_gdb_asks_first() -> None:
    talk = Conversation(Guest())
    supported = talk.answer(b"qSupported:multiprocess+;swbreak+")
    assert supported and {b"QStartNoAckMode+", b"qXfer:features:read+", b"swbreak+"} <= set(supported.split(b";"))
    assert talk.acknowledges
    assert talk.answer(b"QStartNoAckMode") == b"OK"
    assert not talk.acknowledges
    assert talk.answer(b"vCont?") == b"vCont;c;C;s;S"
    assert talk.answer(b"?") == b"T05thread:1;"
    assert [talk.answer(each) for each in (b"qC", b"qfThreadInfo", b"qsThreadInfo", b"Hg0", b"qAttached")] == [
        *(b"QC1", b"m1", b"l", b"OK", b"1")
    ]
    assert (
        talk.answer(b"vMustReplyEmpty") == b"" == talk.answer(b"") == talk.answer(b"qWhatever") == talk.answer(b"\xff")
    )


def test_the_description_comes_in_pieces() -> None:
    talk, text, at = Conversation(Guest()), b"", 0
    while True:
        answer = talk.answer(b"qXfer:features:read:target.xml:%x,64" % at)
        assert answer
        text, at = text + answer[1:], at + 0x64
        if answer[:1] == b"l":
            break
    assert text.startswith(b"<?xml") and text.endswith(b"</target>\n")
    assert talk.answer(b"qXfer:features:read:other.xml:0,64") == b"E00"


def test_registers() -> None:
    guest = Guest()
    talk = Conversation(guest)
    assert talk.answer(b"P0=0807060504030201") == b"OK"
    assert guest.state.regs.rax == 0x0102030405060708
    everything = talk.answer(b"g")
    assert everything and everything.startswith(b"0807060504030201")
    assert talk.answer(b"G" + b"11" * 8 + everything[16:]) == b"OK"
    assert talk.answer(b"p0") == b"11" * 8
    assert talk.answer(b"pfff") == talk.answer(b"P0=zz") == talk.answer(b"p-1") == talk.answer(b"p") == b"E16"
    assert talk.answer(b"P0=11") == b"E0e", "another width"
    assert talk.answer(b"P12=08000000") == b"E0e", "a selector"


def test_memory() -> None:
    guest = Guest()
    talk = Conversation(guest)
    assert talk.answer(b"m0,5") == b"guest".hex().encode()
    assert talk.answer(b"mffe,10") == b"0000", "as far as it goes"
    assert talk.answer(b"m1000,4") == talk.answer(b"M1000,1:00") == b"E0e"
    assert talk.answer(b"M1,2:4142") == b"OK" == talk.answer(b"X3,2:}#")
    assert guest.memory[:5] == b"gAB}#"
    assert talk.answer(b"X0,0:") == b"OK", "gdb tries whether there is such a packet"
    assert talk.answer(b"M0,3:4142") == talk.answer(b"m0") == talk.answer(b"m0x0,1") == b"E16"


@pytest.mark.parametrize(
    ("packet", "point", "software"),
    [
        (b"Z0,1234,1", Point(PointKind.EXECUTE, 0x1234), True),
        (b"Z1,1234,1", Point(PointKind.EXECUTE, 0x1234), False),
        (b"Z2,1238,8", Point(PointKind.WRITE, 0x1238, 8), False),
        (b"Z4,1234,4", Point(PointKind.ACCESS, 0x1234, 4), False),
    ],
)
def test_points(packet: bytes, point: Point, software: bool) -> None:
    guest = Guest()
    talk = Conversation(guest)
    assert talk.answer(packet) == b"OK" == talk.answer(b"z" + packet[1:])
    assert guest.done == [(point, software), point]
    assert talk.answer(b"Z3,1234,4") == b"", "debug registers cannot tell reads from writes"
    assert talk.answer(b"Z2,1234,8") == talk.answer(b"Z2,1234,3") == b"E0e", "no debug register watches that"


def test_a_guest_that_goes_on() -> None:
    guest = Guest()
    talk = Conversation(guest)
    assert talk.answer(b"vCont;c:1;c") is None
    assert talk.running
    assert talk.news() is None
    guest.stops = [Stop(INTERRUPTED)]
    assert talk.news() == b"T02thread:1;"
    assert not talk.running


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (Stop(), b"T05thread:1;"),
        (Stop(point=Point(PointKind.EXECUTE, 5), software=True), b"T05thread:1;swbreak:;"),
        (Stop(point=Point(PointKind.EXECUTE, 5)), b"T05thread:1;hwbreak:;"),
        (Stop(point=Point(PointKind.WRITE, 0x1238, 8)), b"T05thread:1;watch:1238;"),
        (Stop(point=Point(PointKind.ACCESS, 0x1238, 8)), b"T05thread:1;awatch:1238;"),
        (Stop(at_start=True), b"T05thread:1;replaylog:begin;"),
        (Ended(3), b"W03"),
    ],
)
def test_reasons(stop: Stop | Ended, told: bytes) -> None:
    guest = Guest()
    talk = Conversation(guest)
    assert talk.answer(b"c") is None
    guest.stops = [stop]
    assert talk.news() == told
    assert talk.over == isinstance(stop, Ended)


def test_ways() -> None:
    guest = Guest(reverses=True)
    talk = Conversation(guest)
    guest.stops = [Stop()] * 6
    for packet in (b"s", b"c1234", b"C05;1238", b"vCont;s:1;c", b"bs", b"bc"):
        assert talk.answer(packet) == b"T05thread:1;"
    assert guest.done == [Way.STEP, Way.CONTINUE, Way.CONTINUE, Way.STEP, Way.STEP_BACK, Way.BACK]
    assert guest.state.regs.rip == 0x1238
    assert talk.answer(b"vCont;x") == b"E16"
    assert Conversation(Guest()).answer(b"bs") == b"", "only a replay goes back"


def test_the_end_by_gdb() -> None:
    guest = Guest()
    talk = Conversation(guest)
    assert talk.answer(b"D;1") == b"OK"
    assert (talk.over, guest.done) == (True, [])
    for packet, answer in ((b"k", None), (b"vKill;1", b"OK")):
        talk = Conversation(guest := Guest())
        assert talk.answer(packet) == answer
        assert (talk.over, guest.done) == (True, ["kill"])


def test_a_guest_that_has_ended_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> Registers:
        raise EndedError("it has ended")

    guest = Guest()
    monkeypatch.setattr(guest, "registers", ended)
    guest.stops = [None, Ended(5)]
    talk = Conversation(guest)
    assert talk.answer(b"g") is None, "how it has ended is not known yet"
    assert talk.news() == b"W05"
    assert talk.over


def test_monitor() -> None:
    talk = Conversation(Guest())
    assert talk.answer(b"qRcmd," + b"help".hex().encode()) == b"some help\n".hex().encode()
    assert talk.answer(b"qRcmd," + b"what".hex().encode()) == b"no such command\n".hex().encode()
    assert talk.answer(b"qRcmd,6") == b"E16"


@pytest.mark.parametrize(
    ("flags", "architecture"), [(b"\x01\x00", b"i386:x86-64"), (b"\x7f\x00", b"i386:x86-64"), (b"\xfe\xff", b"i386")]
)
def test_a_64_bit_linux_that_starts_is_one(flags: bytes, architecture: bytes) -> None:
    """In protected mode; else breakpoints at addresses of its own were cut to 32 bits."""
    guest = Guest(long_mode=False)
    guest.state.regs.rsi = 0x100
    guest.memory[0x302:0x306], guest.memory[0x336:0x338] = b"HdrS", flags
    xml = Conversation(guest).answer(b"qXfer:features:read:target.xml:0,1000")
    assert xml and b"<architecture>%s</architecture>" % architecture in xml


def test_another_mode_is_remarked_once() -> None:
    guest = Guest(long_mode=False)
    talk = Conversation(guest)
    xml = talk.answer(b"qXfer:features:read:target.xml:0,1000")
    assert xml and b"<architecture>i386</architecture>" in xml
    remarks = []
    for long_mode in (False, True, True):
        assert talk.answer(b"c") is None
        guest.set_mode(long_mode)
        guest.stops = [Stop()]
        assert talk.news() == b"T05thread:1;"
        remarks.append(talk.take_remarks())
    assert [len(each) for each in remarks] == [0, 1, 0]
    assert b"in long mode now" in bytes.fromhex(remarks[1][0][1:].decode())
