"""A core dump's file, read by pyelftools."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from dwcvmm.core.state import State
from dwcvmm.saved.elfcore import CoreFile

PAGE = 4096
REGIONS = [(0, 0xA0000), (0xC0000, 0x40000), (1 << 32, 2 * PAGE)]


def state() -> State:
    made = State()
    made.regs.rip, made.regs.rax, made.regs.r15, made.regs.rflags = 0xFFFFFFFF81000000, 1, 2, 0x202
    made.sregs.cs.selector, made.sregs.cs.l, made.sregs.cs.present, made.sregs.cs.type = 0x10, 1, 1, 0xB
    made.sregs.cs.s = 1
    made.sregs.cr3, made.sregs.cr4, made.sregs.gdt.base, made.sregs.gdt.limit = 0x1000, 0x20, 0x5000, 0x7F
    made.xsave.set_content(bytes(range(256)) * 16)
    return made


def written(parts: dict[int, bytes]) -> ELFFile:
    core = CoreFile(state(), REGIONS)
    file = bytearray(core.size)
    file[: len(core.head)] = core.head
    for gpa, data in parts.items():
        for at, piece in core.places(gpa, data):
            file[at : at + len(piece)] = piece
    return ELFFile(io.BytesIO(bytes(file)))


def test_ram_is_at_its_physical_addresses() -> None:
    elf = written({0x1000: b"a" * PAGE, (1 << 32) + PAGE: b"b" * PAGE})
    assert (elf.header["e_type"], elf.header["e_machine"]) == ("ET_CORE", "EM_X86_64")
    loads = [each for each in elf.iter_segments() if each["p_type"] == "PT_LOAD"]
    assert [(each["p_paddr"], each["p_filesz"]) for each in loads] == REGIONS
    assert all(each["p_vaddr"] == each["p_paddr"] and each["p_offset"] % PAGE == 0 for each in loads)
    assert loads[0].data()[0x1000 : 0x1000 + PAGE] == b"a" * PAGE
    assert loads[2].data() == bytes(PAGE) + b"b" * PAGE


def test_what_is_in_no_region_is_left_out() -> None:
    """A stretch of pages over the VGA hole."""
    core = CoreFile(state(), REGIONS)
    places = core.places(0x9F000, b"x" * 0x22000)
    assert [len(piece) for _, piece in places] == [0x1000, 0x1000]
    assert places[1][0] - places[0][0] == 0x1000, "regions follow each other in the file"
    assert core.places(0xA0000, b"x" * PAGE) == []


def test_notes() -> None:
    segment: Any = next(each for each in written({}).iter_segments() if each["p_type"] == "PT_NOTE")
    notes = {(note["n_name"], note["n_type"]): note["n_descdata"] for note in segment.iter_notes()}
    contents = {name: content for (name, _), content in notes.items() if name == "QEMU"}
    assert [name for name, _ in notes] == ["CORE", "CORE", "QEMU"]
    vcpu = contents["QEMU"]
    vcpu = vcpu if isinstance(vcpu, bytes) else vcpu.encode("latin-1")
    assert struct.unpack_from("<II", vcpu) == (1, len(vcpu)) == (1, 440)
    assert struct.unpack_from("<18Q", vcpu, 8)[16:] == (0xFFFFFFFF81000000, 0x202)
    selector, _, attributes, _, _ = struct.unpack_from("<IIIIQ", vcpu, 152)
    assert (selector, attributes) == (0x10, 0x209B00), "64-bit code, as in a descriptor"
    assert struct.unpack_from("<IIIIQ", vcpu, 152 + 24 * 8) == (0, 0x7F, 0, 0, 0x5000)
    assert struct.unpack_from("<5Q", vcpu, 152 + 24 * 10)[3:] == (0x1000, 0x20)


def test_the_status_has_linux_order() -> None:
    core = CoreFile(state(), REGIONS)
    at = core.head.index(b"CORE\0") + 8
    registers = struct.unpack_from("<27Q", core.head, at + 112)
    assert (registers[0], registers[10], registers[16], registers[18]) == (2, 1, 0xFFFFFFFF81000000, 0x202)
    assert struct.unpack_from("<I", core.head, at + 32) == (1,)


def test_an_address_that_is_in_no_region_has_no_place() -> None:
    with pytest.raises(ValueError, match="no region"):
        CoreFile(state(), REGIONS)._offset(0xB0000)
