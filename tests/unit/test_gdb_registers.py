"""The registers that gdb is told of: their description, and where their values are."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from dwcvmm.core.state import State
from dwcvmm.gdb.description import Description, Mode
from dwcvmm.gdb.registers import AVX, NotSettableError, Registers
from dwcvmm.saved.xsave import Component

COMPONENTS = {AVX: Component(576, 256)}
MODES = [(mode, avx) for mode in Mode for avx in (True, False)]
# what gdb wants of a description: its features.c
SEGMENTS = ["eflags", "cs", "ss", "ds", "es", "fs", "gs"]
CORE_64 = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)), "rip", *SEGMENTS]
CORE_32 = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", *SEGMENTS]
X87 = [*(f"st{i}" for i in range(8)), "fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"]


def indexed(description: Description) -> dict[str, int]:
    return {register.name: number for number, register in enumerate(description.registers)}


@pytest.mark.parametrize(("mode", "avx"), MODES)
def test_the_description_names_all_registers_in_their_order(mode: Mode, avx: bool) -> None:
    description = Description(mode, avx)
    root = ElementTree.fromstring(description.xml())
    assert root.findtext("architecture") == {Mode.LONG: "i386:x86-64", Mode.PROTECTED: "i386", Mode.REAL: "i8086"}[mode]
    features = {
        each.attrib["name"]: [reg.attrib["name"] for reg in each.findall("reg")] for each in root.iter("feature")
    }
    assert features["org.gnu.gdb.i386.core"] == [*(CORE_64 if mode is Mode.LONG else CORE_32), *X87]
    vectors = 16 if mode is Mode.LONG else 8
    assert features["org.gnu.gdb.i386.sse"] == [*(f"xmm{i}" for i in range(vectors)), "mxcsr"]
    assert ("org.gnu.gdb.i386.avx" in features) == avx
    regs = list(root.iter("reg"))
    assert [reg.attrib["name"] for reg in regs] == [register.name for register in description.registers]
    sizes = sum(int(reg.attrib["bitsize"]) for reg in regs) // 8
    assert len(description.all_values(Registers(State(), COMPONENTS))) == sizes
    kinds = {each.attrib["id"] for each in root.iter() if "id" in each.attrib}
    known = {"int", "int32", "int64", "uint128", "data_ptr", "code_ptr", "i387_ext"}
    assert {reg.attrib["type"] for reg in regs} <= kinds | known


@pytest.mark.parametrize(("mode", "avx"), MODES)
def test_each_register_can_be_written_alone(mode: Mode, avx: bool) -> None:
    """And is read as it was written, while all others stay."""
    description = Description(mode, avx)
    numbers = indexed(description)
    for name, number in numbers.items():
        now = Registers(State(), COMPONENTS)
        before = [description.value(each, now) for each in numbers.values()]
        value = bytes([0x5A]) * description.registers[number].size
        if name in ("cs", "ss", "ds", "es", "fs", "gs"):
            with pytest.raises(NotSettableError):
                description.set_value(number, now, value)
            continue
        description.set_value(number, now, value)
        again = Registers(now.changed(), COMPONENTS)
        after = [description.value(each, again) for each in numbers.values()]
        changed = [other for other, x, y in zip(numbers, before, after, strict=True) if x != y]
        if name == "k_gs_base":  # there are no MSRs in a state of zeros
            assert changed == []
            continue
        assert changed == [name]
        narrow = {"fctrl", "fstat", "fiseg", "foseg", "fop"}
        if name != "ftag" and name not in narrow:
            assert after[number] == value


def test_the_program_counter_is_a_linear_address() -> None:
    state = State()
    state.regs.rip, state.sregs.cs.base = 0xFFF0, 0xFFFF0000
    description, now = Description(Mode.PROTECTED, False), Registers(state, {})
    eip = indexed(description)["eip"]
    assert description.value(eip, now) == (0xFFFFFFF0).to_bytes(4, "little")
    description.set_value(eip, now, (0xFFFF1234).to_bytes(4, "little"))
    assert now.changed().regs.rip == 0x1234


def test_upper_halves_stay_if_a_narrow_description_writes_all() -> None:
    state = State()
    state.regs.rax = 0x1_0000_0001
    description, now = Description(Mode.PROTECTED, False), Registers(state, {})
    description.set_all(now, description.all_values(now))
    assert now.changed().regs.rax == 0x1_0000_0001


def test_values_of_another_length_are_refused() -> None:
    description, now = Description(Mode.LONG, False), Registers(State(), {})
    for values in (b"", description.all_values(now) + b"\0"):
        with pytest.raises(NotSettableError):
            description.set_all(now, values)
    with pytest.raises(NotSettableError):
        description.set_value(0, now, b"\0")


def test_written_vectors_are_in_use() -> None:
    """KVM takes a component from an XSAVE area only if its bit in XSTATE_BV is set."""
    description, now = Description(Mode.LONG, True), Registers(State(), COMPONENTS)
    description.set_value(indexed(description)["ymm3h"], now, b"\1" * 16)
    assert now.changed().xsave.byte(512) & 1 << AVX
    now = Registers(State(), COMPONENTS)
    description.set_value(indexed(description)["xmm3"], now, b"\1" * 16)
    assert now.changed().xsave.byte(512) & 3 == 3
