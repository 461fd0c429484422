"""Triage: the file, the analysis against plain counting, symbols, words. No KVM."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcvmm.cli.diff import diff
from dwcvmm.core.enums import PAGE
from dwcvmm.core.kvmstructs import REGISTERS
from dwcvmm.errors import ConfigError
from dwcvmm.results.divergencefile import (
    MOST_BYTES,
    RUNNING,
    SCHEMA,
    XSAVE_BYTES,
    Exit,
    KeptDivergence,
    Page,
    Run,
    State,
    encode,
    load,
)  # fmt: skip
from dwcvmm.results.divergencekeeper import repeat_command
from dwcvmm.results.reportfile import GuestFacts, HostFacts
from dwcvmm.triage.analysis import Triage, analyse
from dwcvmm.triage.differences import page_difference
from dwcvmm.triage.judgement import bits_text
from dwcvmm.triage.places import exit_text
from dwcvmm.triage.symbols import FARTHEST, Symbol, Symbols, load_symbols
from dwcvmm.triage.text import render

# files, disassembly: what they take on a busy machine says nothing
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
U64 = st.integers(0, (1 << 64) - 1)
RIP = 0x100010
CODE = bytes.fromhex("4869db2df45158 4801cb 89d8 e680 ffc9 75ee")  # imul, add, mov, out; dec, jne
SEGMENT = {"cs.base": 0, "cs.limit": 0xFFFF, "cs.unusable": 0}
EVENTS = {"events.exception.pending": 0, "events.exception.injected": 0, "events.exception.nr": 0}


def state(registers: dict[str, int] | None = None, xsave: bytes = bytes(XSAVE_BYTES), **more: int) -> State:
    everything = dict.fromkeys(REGISTERS, 0) | SEGMENT | EVENTS | {"rip": RIP, "msr:0xc0000082": 0}
    return State(registers=everything | (registers or {}) | more, xsave=xsave)


def run(after: State, **exit_fields: Any) -> Run:
    fields: dict[str, Any] = {
        "is_write": True,
        "port": 0x80,
        "gpa": 0,
        "size": 1,
        "count": 1,
        "info": 0,
        "data": b"\x41",
    }
    exit_ = Exit(**({"reason": "io"} | fields | exit_fields))
    at = after.registers["rip"] - 14
    return Run(state=after, exit=exit_, cpu=-1, linear_rip=at + 14, code_bits=64, code_at=at, code=CODE)


def kept(a: Run | None = None, b: Run | None = None, before: State | None = None, **changes: Any) -> KeptDivergence:
    host = HostFacts(kvm_module="k", kernel="6", cpu="c", cpus=2, shadow_paging=False, exit_ns=1)
    guest = GuestFacts(
        kernel="ports.bin", kernel_sha256="0" * 64, initrd=None, command_line="quiet", memory_bytes=1 << 24, status=0,
        time_sites=0, time_reads=0, clock="virtual", clock_divisor=1,
    )  # fmt: skip
    example = KeptDivergence(
        version="0", command="dwcvmm run", directory="/", strategy="sequential", host=host, guest=guest,
        cause="unexplained", element=7, attempt=1, groups=["regs"], detail={}, fault=None, vector=None,
        since_checkpoint=3, before=before or state(), runs=(a or run(state()), b or run(state())), pages=[],
        pages_differ=0,
    )  # fmt: skip
    return msgspec.structs.replace(example, **changes)


def page(a: bytes, b: bytes, checkpoint: bytes, logged: bool = True) -> Page:
    return Page(gpa=0x400000, logged=logged, a=a, b=b, checkpoint=checkpoint)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kept.div"
    path.write_bytes(encode(kept(pages=[page(bytes(PAGE), bytes([1]) + bytes(PAGE - 1), bytes(PAGE))])))
    return path


@untimed
@given(registers=st.dictionaries(st.sampled_from(REGISTERS), U64), vector=st.none() | st.integers(0, 255))
def test_the_file_gives_back_what_was_kept(
    tmp_path_factory: pytest.TempPathFactory, registers: dict[str, int], vector: int | None
) -> None:
    one = kept(run(state(registers | {"rip": RIP})), vector=vector, detail={"fault": "x", "search": {"rip": 1 << 63}})
    path = tmp_path_factory.mktemp("kept") / "k.div"
    path.write_bytes(encode(one))
    assert load(path) == one


@untimed
@given(data=st.data())
def test_a_truncated_or_damaged_file_is_refused(file: Path, data: st.DataObject) -> None:
    content = file.read_bytes()
    shorter, damaged = file.with_suffix(".cut"), file.with_suffix(".bad")
    shorter.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ConfigError):
        load(shorter)
    at = data.draw(st.integers(0, len(content) - 1))
    damaged.write_bytes(content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :])
    with contextlib.suppress(ConfigError):
        assert load(damaged) == load(file)  # spare bits of a deflate stream


def packed(document: object) -> bytes:
    return SCHEMA.encode() + b"\n" + zlib.compress(msgspec.msgpack.encode(document))


WRONG = {
    "empty": (b"", "is empty"),
    "report": (b'{"schema": "dwcvmm-report/1"}\n', "was not written by"),
    "another version": (b"dwcvmm-divergence/9\n", "has schema dwcvmm-divergence/9"),
    "header only": (SCHEMA.encode(), "is truncated"),
    "foreign": (b"\x7fELF" + bytes(100), "was not written by"),
    "not packed": (SCHEMA.encode() + b"\nhello, world", "is damaged"),
    "other content": (packed({"element": 1}), "is not a"),
    "short page": (packed(msgspec.to_builtins(kept()) | {"pages": [{"gpa": 0}]}), "is not a"),
    "more behind it": (encode(kept()) + b"more", "more after"),
    "a bomb": (packed([bytes(MOST_BYTES + 1)]), "too large"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_named_and_refused(tmp_path: Path, name: str) -> None:
    content, words = WRONG[name]
    path = tmp_path / "wrong"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load(path)
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "missing")


def flipped(copy: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(copy)
    for at, mask in flips:
        changed[at] ^= mask
    return bytes(changed)


FLIPS = st.lists(st.tuples(st.integers(0, PAGE - 1), st.integers(1, 255)), max_size=6)


@untimed
@given(a=FLIPS, b=FLIPS)
def test_words_of_a_page_are_those_that_differ(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    base = bytes(i * 7 & 0xFF for i in range(PAGE))
    pa, pb = flipped(base, a), flipped(base, b)
    found = page_difference(page(pa, pb, base))
    rebuilt = bytearray(pb)
    for word in found.words:
        offset = int(word.name, 16) - 0x400000
        assert offset % 8 == 0
        change = sum(1 << bit for bit in word.bits)
        value = int.from_bytes(pb[offset : offset + 8], "little") ^ change
        assert change and word.a == f"{value:#x}"
        rebuilt[offset : offset + 8] = value.to_bytes(8, "little")
    assert bytes(rebuilt) == pa
    if pa != pb:
        assert found.changed_by == ("B" if pa == base else "A" if pb == base else "both")


@untimed
@given(a=U64, b=U64, before=U64, name=st.sampled_from(["rax", "r15", "rflags", "msr:0xc0000082", "cs.base"]))
def test_registers_that_differ(a: int, b: int, before: int, name: str) -> None:
    triage = analyse(kept(run(state({name: a})), run(state({name: b})), state({name: before})))
    if a == b or (name == "rflags" and a ^ b == 1 << 16):
        assert triage.registers == []
        return
    (found,) = triage.registers
    assert (found.name, found.a, found.b, found.before) == (name, f"{a:#x}", f"{b:#x}", f"{before:#x}")
    assert sum(1 << bit for bit in found.bits) == a ^ b
    assert found.changed_by == ("B" if a == before else "A" if b == before else "both")


@given(st.sets(st.integers(0, 63), min_size=1))
def test_bits_in_words(bits: set[int]) -> None:
    ordered = sorted(bits)
    text = bits_text(ordered)
    if " bits from " in text:
        assert text == f"{len(bits)} bits from {ordered[0]} to {ordered[-1]}"
        return
    named: list[int] = []
    for piece in text.removeprefix("bits ").removeprefix("bit ").split(", "):
        first, _, last = piece.partition(" to ")
        named += range(int(first), int(last or first) + 1)
    assert named == ordered


def test_one_bit_in_one_replica() -> None:
    triage = analyse(kept(b=run(state(rax=8)), fault="7:e2:rax:3", cause="injected"))
    assert "Replica B alone changed bit 3 of RAX." in triage.judgement
    assert "the fault 7:e2:rax:3 was injected into replica B (e2)" in triage.judgement[0]
    assert any("single bit" in sentence for sentence in triage.judgement)


def test_flags_by_name() -> None:
    triage = analyse(kept(a=run(state(rflags=0x41)), b=run(state(rflags=0x3000))))
    assert triage.registers[0].bit_names == ["CF", "ZF", "IOPL", "IOPL"]
    assert "bits 0, 6, 12, 13 (CF, ZF, IOPL)" in render(triage)


def test_vector_registers_by_name() -> None:
    xmm1, ymm0, beyond = (bytearray(XSAVE_BYTES) for _ in range(3))
    xmm1[176 + 5], ymm0[576], beyond[840] = 1, 2, 4
    names = [
        (one.name, one.bits)
        for image in (xmm1, ymm0, beyond)
        for one in analyse(kept(b=run(state(xsave=bytes(image))))).registers
    ]
    assert names == [("xmm1", [40]), ("ymm0.high", [1]), ("xsave+840", [2])]


@pytest.mark.parametrize(
    ("a", "b", "harmless"),
    [
        ({"rflags": 0x10002}, {"rflags": 2}, True),
        ({"rflags": 0x10003}, {"rflags": 2}, False),
        ({"cs.unusable": 1, "cs.limit": 1}, {"cs.unusable": 1, "cs.limit": 2}, True),
        ({"cs.unusable": 1, "cs.base": 1}, {"cs.unusable": 1, "cs.base": 2}, False),
        ({"cs.limit": 1}, {"cs.limit": 2}, False),
        ({"events.exception.nr": 14}, {}, True),
        ({"events.exception.nr": 14, "events.exception.pending": 1}, {"events.exception.pending": 1}, False),
    ],
)
def test_what_the_comparison_takes_for_harmless(a: dict[str, int], b: dict[str, int], harmless: bool) -> None:
    triage = analyse(kept(run(state(a)), run(state(b))))
    assert bool(triage.harmless) is harmless
    assert bool(triage.registers) is not harmless


def test_pages_in_words() -> None:
    zero, one, two = bytes(PAGE), bytes([1]) + bytes(PAGE - 1), bytes([2]) + bytes(PAGE - 1)

    def judged(a: bytes, b: bytes, checkpoint: bytes, logged: bool = True) -> str:
        return " ".join(analyse(kept(pages=[page(a, b, checkpoint, logged)], pages_differ=1)).judgement)

    assert "Replica B alone changed page 0x400000: bit 0 of the word at 0x400000." in judged(zero, one, zero)
    assert "Replica A alone changed page 0x400000" in judged(one, zero, zero)
    assert "Both wrote page 0x400000, and differently: bits 0, 1 of" in judged(one, two, zero)
    assert "upset of memory at rest" in judged(zero, one, zero, logged=False)
    assert "No register and no page differs." in analyse(kept()).judgement


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(None, "cannot tell"), (["A"], "as B had"), (["B"], "as A had"), (["A", "B"], "as neither"), ([], "as both")],
)
def test_who_was_wrong_in_words(wrong: list[str] | None, words: str) -> None:
    last = analyse(kept(run(state(rax=1)), run(state(rax=2)), wrong=wrong)).judgement[-1]
    assert words in last
    assert ("replica" in last) is (wrong is not None and len(wrong) == 1)


def test_ends_in_words() -> None:
    other_data = kept(run(state()), run(state(), data=b"\x42"), groups=["exit"])
    assert "same way with different data" in analyse(other_data).judgement[1]
    other_exit = kept(run(state()), run(state(rip=RIP + 1), reason="hlt"), groups=["exit"])
    sentences = analyse(other_exit, Symbols([Symbol(RIP - 4, 0, "work")])).judgement
    assert "different ways: A by io: out to port 0x80, 1 byte: 41; B by hlt" in sentences[1]
    assert f"A at {RIP:#x} (work+0x4), B at {RIP + 1:#x} (work+0x5)" in sentences[2]


def test_a_hang_in_words() -> None:
    hang = kept(run(state()), run(state(), reason=RUNNING, is_write=False), groups=["hang"], cause="alignment")
    assert "could not be brought together" in analyse(hang).judgement[0]
    assert analyse(hang).judgement[1].startswith("Replica B had not ended")
    assert "older one" in analyse(kept(groups=["hang"])).judgement[1]


def test_code_around_rip() -> None:
    for symbols in (None, Symbols([Symbol(RIP - 7, 0, "inner")])):
        lines = analyse(kept(), symbols).places[0].code
        assert [text.split()[-3:] for here, text in lines if here] == [["c9", "dec", "ecx"]]
        assert [text.split()[-3] for here, text in lines[:-2]][-2:] == ["mov", "out"]
    nowhere = msgspec.structs.replace(run(state()), code=b"", code_at=RIP)
    assert analyse(kept(a=nowhere)).places[0].code == [(True, f"{RIP:#x}: not mapped")]


MAPS = st.dictionaries(U64, st.from_regex(r"[a-z_]{1,8}", fullmatch=True), min_size=1, max_size=20)


@untimed
@given(table=MAPS, near=st.data())
def test_symbols_of_a_map(tmp_path: Path, table: dict[int, str], near: st.DataObject) -> None:
    path = tmp_path / "System.map"
    path.write_text("0000000000000000 A absolute\n" + "".join(f"{at:016x} T {name}\n" for at, name in table.items()))
    address = near.draw(U64 | st.sampled_from(sorted(table)).map(lambda at: at + 5))
    below = [at for at in table if at <= address]
    expected = None
    if below and address - max(below) < FARTHEST:
        expected = f"{table[max(below)]}+{address - max(below):#x}"
    assert load_symbols(path).name(address) == expected


def test_a_symbol_ends_where_its_size_says() -> None:
    symbols = Symbols([Symbol(0x1000, 0x10, "f"), Symbol(0x1000, 0, "label"), Symbol(0x1020, 0, "g")])
    names = {0xFFF: None, 0x1000: "f+0x0", 0x100F: "f+0xf", 0x1010: None, 0x1021: "g+0x1"}
    assert {address: symbols.name(address) for address in names} == names


@pytest.mark.skipif(not shutil.which("nasm"), reason="nasm is not installed")
def test_symbols_of_an_elf_file(tmp_path: Path) -> None:
    source, path = tmp_path / "s.asm", tmp_path / "s.o"
    source.write_text(
        "bits 64\nglobal first:function (first.end - first)\nfirst: nop\n nop\n.end:\nsecond: ret\nnumber equ 1\n"
    )
    subprocess.run(["nasm", "-f", "elf64", "-o", path, source], check=True)
    symbols = load_symbols(path)
    assert (symbols.name(1), symbols.name(2)) == ("first+0x1", "second+0x0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match="truncated or damaged"):
        load_symbols(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "none in it"), (b"hello\n", "neither"), (b"1000 TT f\n", "neither"), (b"\x7fELF", "damaged")],
)
def test_files_without_symbols_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "symbols"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load_symbols(path)


def test_every_field_of_the_json_is_documented() -> None:
    text = (ROOT / "docs" / "triage.md").read_text()
    for struct in msgspec.json.schema(Triage)["$defs"].values():
        for field in struct["properties"]:
            assert f"`{field}`" in text, f"{field} is missing in docs/triage.md"


def test_text_is_short_and_json_has_it_all(tmp_path: Path) -> None:
    pages = [page(bytes(PAGE), bytes([255]) * PAGE, bytes(PAGE)) for _ in range(10)]
    path = tmp_path / "k.div"
    path.write_bytes(encode(kept(pages=pages, pages_differ=1200)))
    text = CliRunner().invoke(diff, [str(path)], standalone_mode=False).output
    assert "and 496 more words" in text and "and 1192 more pages" in text
    document = msgspec.json.decode(CliRunner().invoke(diff, [str(path), "--json"], standalone_mode=False).output)
    assert document["schema"] == "dwcvmm-triage/1"
    assert [len(each["words"]) for each in document["pages"]] == [PAGE // 8] * 10


@given(st.lists(st.sampled_from(["run", "--kernel", "a b", "--keep-divergence=x", "-q", "$HOME"])), st.integers(0, 5))
def test_the_command_that_repeats_a_run_does_not_write_over_the_file(arguments: list[str], at: int) -> None:
    given_ = [*arguments[:at], "--keep-divergence", "x y", *arguments[at:]]
    expected = [argument for argument in arguments if argument != "--keep-divergence=x"]
    assert shlex.split(repeat_command(given_)) == ["dwcvmm", *expected]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "io: out to port 0x80, 1 byte: 41"),
        ({"reason": "mmio", "gpa": 0xFEE00020, "size": 4, "is_write": False}, "mmio: read from 0xfee00020, 4 bytes"),
        ({"reason": "x86_wrmsr", "gpa": 0xC0000103, "size": 8, "data": b"\5\0"}, "msr: write to 0xc0000103: 05 00"),
        ({"reason": "x86_rdmsr", "gpa": 0x10, "size": 8, "is_write": False}, "msr: read from 0x10"),
    ],
)
def test_exits_in_words(fields: dict[str, object], text: str) -> None:
    assert exit_text(run(state(), **fields).exit) == text
