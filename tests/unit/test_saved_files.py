"""The files of a saved machine: whole or refused by name, whatever happened to them; their parts; what a host needs."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.bare import content_of, document_of, named_bytes
from dwcvmm.core.chipset import SENT, Chipset
from dwcvmm.core.enums import SENT_BYTES
from dwcvmm.core.kvmstructs import CpuidEntry
from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.saved import pages
from dwcvmm.saved.folder import MACHINE, DamagedError, SavedReader, SaveError, with_sum
from dwcvmm.saved.form import ClockForm, GuestForm, MachineForm, VcpuForm
from dwcvmm.saved.needs import differences
from dwcvmm.saved.remote import RemoteSink
from dwcvmm.saved.writer import SavedWriter
from dwcvmm.saved.xsave import AREA_BYTES, Component, build, components, named

PAGE = pages.PAGE
VCPU = VcpuForm(
    regs={"rip": 1},
    sregs={},
    events={},
    debugregs={},
    xcrs={"0": 7},
    msrs={"0x277": 6},
    xsave={},
    halted=False,
    clock=ClockForm(guest_ns=5, tsc=0, site_base=0, site_last=0, tsc_aux=0),
)


def machine(number: int = 1) -> MachineForm:
    guest = GuestForm(
        kernel="k", kernel_sha256="0" * 64, initrd=None, command_line="", memory_bytes=16 << 20, date_ns=0
    )
    return MachineForm(
        element=number,
        strategy="off",
        guest=guest,
        shows_tsc=False,
        disks=[],
        rng=False,
        virtio_console=False,
        serial_ports=1,
        cpuid=[CpuidEntry(0, eax=13)],
    )


def write(path: Path, number: int = 1) -> None:
    with closing(SavedWriter(path)) as writer:
        writer.begin()
        writer.part("vcpu", [msgspec.json.encode(VCPU)])
        writer.part("ram", pages.compressed(pages.encode([(0, random.Random(number).randbytes(PAGE * 4))])))
        writer.finish(machine(number))


def read(path: Path) -> tuple[int, bytes]:
    """The machine's element, and its first stretch of RAM."""
    with closing(SavedReader(path)) as reader:
        assert reader.form("vcpu", VcpuForm) == VCPU
        return reader.machine.element, next(pages.decode(pages.unpacked(reader.file("ram"))))[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "machine"
    write(path)
    return path


FILES = (MACHINE, "vcpu.1.json", "ram.1.zst")


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_flipped_bit_is_found(saved: Path, name: str, data: st.DataObject) -> None:
    whole = (saved / name).read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    check_refused(saved, name, bytes(damaged))


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_cut_file_is_found(saved: Path, name: str, data: st.DataObject) -> None:
    whole = (saved / name).read_bytes()
    check_refused(saved, name, whole[: data.draw(st.integers(0, len(whole) - 1))])
    check_refused(saved, name, whole + data.draw(st.binary(min_size=1, max_size=20)))


def check_refused(path: Path, name: str, content: bytes) -> None:
    whole = (path / name).read_bytes()
    try:
        (path / name).write_bytes(content)
        with pytest.raises(DamagedError) as caught:
            read(path)
    finally:
        (path / name).write_bytes(whole)
    assert str(caught.value).startswith(f"{name} in {path} is damaged")
    assert caught.value.exit_code is ExitCode.CONFIG
    assert read(path)[0] == 1


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(ConfigError, match=name):
        read(tmp_path / "m")


def test_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m")
    with closing(SavedReader(tmp_path / "m")) as reader:
        (tmp_path / "m" / MACHINE).write_bytes(with_sum(msgspec.structs.replace(reader.machine, version=99)))
    with pytest.raises(ConfigError, match="version 99"):
        read(tmp_path / "m")


def test_what_is_no_saved_machine(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path("/dev/null"), Path("a\0b")):
        with pytest.raises(ConfigError):
            SavedReader(path)
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ConfigError, match="'letter' is there"):
        SavedWriter(tmp_path)


def test_saved_again_the_files_of_before_are_gone(tmp_path: Path) -> None:
    for number in range(1, 4):
        write(tmp_path / "m", number)
        assert read(tmp_path / "m")[0] == number
        assert len(list((tmp_path / "m").iterdir())) == 3


def test_a_directory_for_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("made", "there"):
        SavedWriter(tmp_path / name).close()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_is_abandoned_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "m")
    with closing(SavedWriter(tmp_path / "m")) as writer:
        writer.begin()
        with pytest.raises(ConfigError, match="is being saved"):
            SavedReader(tmp_path / "m")
        with closing(SavedWriter(tmp_path / "m")) as other, pytest.raises(SaveError, match="in use"):
            other.begin()
        writer.part("vcpu", [b"x"])
        writer.abandon()
    assert read(tmp_path / "m")[0] == 1
    assert len(list((tmp_path / "m").iterdir())) == 3


WRITER = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_saved_files import write
number = 2
while True:
    write(Path(sys.argv[1]), number)
    print(number, flush=True)
    number += 1
"""


def test_killed_while_it_is_saved_one_is_whole(tmp_path: Path) -> None:
    path, seen = tmp_path / "m", set()
    write(path)
    program = WRITER.format(tests=str(Path(__file__).parent))
    for attempt in range(12):
        process = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline()
        time.sleep(0.002 * attempt)
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        element, content = read(path)
        seen.add(element)
        assert element >= max(map(int, said.split()), default=2)
        assert content == random.Random(element).randbytes(PAGE * 4)
        write(path)
        assert len(list(path.iterdir())) == 3
    assert max(seen) > 2


@pytest.mark.parametrize("limit", [4096, 20_000])
def test_no_room(tmp_path: Path, limit: int) -> None:
    """Of files that may not become as long: the old machine is whole."""
    write(tmp_path / "m")
    program = f"""
import resource, signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_saved_files import write
from dwcvmm.errors import DwcVmmError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write(Path(sys.argv[1]), 2)
except DwcVmmError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program, tmp_path / "m"], capture_output=True, text=True, check=True)
    if limit == 4096:
        assert "File too large" in said.stdout
        assert read(tmp_path / "m")[0] == 1
    else:
        assert read(tmp_path / "m")[0] == 2


def test_a_process_of_its_own_writes(tmp_path: Path) -> None:
    with closing(RemoteSink(tmp_path / "m")) as sink:
        for number in (1, 2):
            sink.begin()
            sink.part("vcpu", [msgspec.json.encode(VCPU)])
            sink.part("ram", pages.compressed(pages.encode([(0, bytes(range(256)) * 16)])))
            assert sink.finish(machine(number)) > 100
            assert read(tmp_path / "m") == (number, bytes(range(256)) * 16)
        sink.begin()
        sink.part("vcpu", [b"x"])
        with pytest.raises(SaveError, match="no part 'passwords'"):
            sink.part("passwords", [b"x" * 3_000_000])
        sink.open_part("ram")
        sink.write(b"x")
        sink.abandon()
        write(tmp_path / "m", 3)  # it is no longer in use
        write(tmp_path / "m", 2)
        assert read(tmp_path / "m")[0] == 2
        os.kill(sink._process.pid, signal.SIGKILL)
        with pytest.raises(SaveError, match="has ended"):
            sink.begin()
            sink.begin()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "letter").write_text("dear")
    with pytest.raises(ConfigError, match="'letter' is there"):
        RemoteSink(tmp_path / "x")


# RAM

RAM = st.dictionaries(st.integers(0, 600), st.integers(0, 3), max_size=40)


@given(RAM)
def test_pages_that_are_not_zero_come_back(content: dict[int, int]) -> None:
    def read_ram(gpa: int, length: int) -> bytes:
        return b"".join(bytes([content[at // PAGE]]) * PAGE for at in range(gpa, gpa + length, PAGE))

    stretches = list(pages.stretches((number * PAGE for number in sorted(content)), read_ram))
    packed = b"".join(pages.compressed(pages.encode(stretches)))
    back = list(pages.decode(pages.unpacked(io.BytesIO(packed))))
    assert back == stretches
    found = {gpa + at: data[at] for gpa, data in back for at in range(0, len(data), PAGE)}
    assert found == {number * PAGE: value for number, value in content.items() if value}
    assert all(len(data) <= pages.MOST_PAGES * PAGE for _, data in back)


def heads(*each: tuple[int, int]) -> bytes:
    return b"".join(pages.HEAD.pack(*head) for head in each)


@pytest.mark.parametrize(
    "stream",
    [b"", heads((0, PAGE)), heads((0, 100)), heads((5, PAGE)) + bytes(PAGE), heads((0, 1 << 40)), heads((0, 0)) + b"x"],
)
def test_a_stream_that_cannot_be_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError):
        list(pages.decode(io.BytesIO(stream)))


@given(st.binary(max_size=200))
def test_what_is_not_packed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        list(pages.decode(pages.unpacked(io.BytesIO(data))))


# named fields


def test_no_byte_of_the_devices_is_forgotten() -> None:
    """Each byte is in a field that is saved, but for padding and what the serial port has sent."""
    chipset = Chipset()
    chipset.power_on(0)
    whole, before = chipset.content(), chipset.document()
    assert document_of("struct dwc_pc", whole, SENT) == before
    seen = 0
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        seen += int(document_of("struct dwc_pc", changed, SENT) != before)
    assert seen == named_bytes("struct dwc_pc", SENT)
    assert len(whole) - seen - SENT_BYTES < 160


@given(st.binary(min_size=80, max_size=80))
def test_fields_come_back(content: bytes) -> None:
    for ctype in ("struct dwc_pit_channel", "struct dwc_pic_chip", "struct dwc_virtqueue", "struct dwc_pci_function"):
        document = document_of(ctype, content)
        assert document_of(ctype, content_of(ctype, document)) == document


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "not the fields"),
        ({"index": 1, "memory": [0] * 127, "chain_ns": 0, "seen_ns": 0, "deadline_ns": 0}, "memory: not 128 values"),
        ({"index": 256, "memory": [0] * 128, "chain_ns": 0, "seen_ns": 0, "deadline_ns": 0}, "index: "),
        ({"index": "a", "memory": [0] * 128, "chain_ns": 0, "seen_ns": 0, "deadline_ns": 0}, "index: not a whole"),
        ({"index": 1, "memory": [0] * 127 + [-1], "chain_ns": 0, "seen_ns": 0, "deadline_ns": 0}, "memory: 127: "),
        ({"index": 1, "memory": [0] * 128, "chain_ns": 1 << 64, "seen_ns": 0, "deadline_ns": 0}, "chain_ns: "),
    ],
)
def test_fields_that_cannot_be_are_refused(document: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        content_of("struct dwc_rtc", document)


# the XSAVE area

LAYOUT = {2: Component(576, 256), 9: Component(2432, 8)}


@given(st.binary(min_size=416, max_size=416), st.binary(min_size=256, max_size=256), st.binary(min_size=8, max_size=8))
def test_the_area_comes_back(legacy: bytes, avx: bytes, pkru: bytes) -> None:
    area = bytearray(AREA_BYTES)
    area[:416], area[576:832], area[2432:2440] = legacy, avx, pkru
    area[5] = 0  # reserved, as are the upper bytes of each x87 register
    for at in range(32, 160, 16):
        area[at + 10 : at + 16] = bytes(6)
    area[512] = 7
    parts = named(bytes(area), LAYOUT)
    assert build(parts, LAYOUT) == bytes(area)
    elsewhere = build(parts, {2: Component(576, 256), 9: Component(2688, 8)})
    assert elsewhere[2688:2696] == pkru and not any(elsewhere[832:2688])
    with pytest.raises(KeyError):
        build(parts, {2: Component(576, 256)})
    with pytest.raises(ValueError):
        build(parts, {2: Component(576, 128), 9: Component(2432, 8)})


def test_state_without_a_name_is_refused() -> None:
    area = bytearray(AREA_BYTES)
    area[3000] = 1
    with pytest.raises(ValueError, match="more than CPUID tells"):
        named(bytes(area), LAYOUT)


# what a host needs

GUESTS_CPU = [
    CpuidEntry(0, eax=13, ebx=0x756E6547, edx=0x49656E69, ecx=0x6C65746E),
    CpuidEntry(1, ecx=1 << 28 | 1 << 27 | 1 << 26, edx=1 << 25),
    CpuidEntry(7, ebx=1 << 5),
    CpuidEntry(0xD, 0, 1, eax=7, ebx=832, ecx=832),
    CpuidEntry(0xD, 2, 1, eax=256, ebx=576),
    CpuidEntry(0x80000008, eax=46),
]


def other(function: int, index: int = 0, **changes: int) -> list[CpuidEntry]:
    return [
        replace(leaf, **changes) if (leaf.function, leaf.index) == (function, index) else leaf for leaf in GUESTS_CPU
    ]


@pytest.mark.parametrize(
    ("here", "missing"),
    [
        (GUESTS_CPU, []),
        (other(1, ecx=1 << 28 | 1 << 26 | 1 << 12), []),  # OSXSAVE is the guest's own, and more does no harm
        (other(1, ecx=1 << 26), ["CPUID 0x1.0 ecx bit 28"]),
        (other(7, ebx=0), ["CPUID 0x7.0 ebx bit 5"]),
        ([leaf for leaf in GUESTS_CPU if leaf.function != 7], ["CPUID 0x7.0 ebx bit 5"]),
        (other(0x80000008, eax=39), ["physical addresses of 46 bits, and this host has 39"]),
        (other(0x80000008, eax=48), []),
        (other(0xD, 2, ebx=640), ["XSAVE component 2 at 576, and this host has it at 640"]),
        (
            other(0, ebx=0x68747541, edx=0x69746E65, ecx=0x444D4163),
            ["a processor of GenuineIntel, and this is one of AuthenticAMD"],
        ),
    ],
)
def test_what_a_host_lacks_is_listed(here: list[CpuidEntry], missing: list[str]) -> None:
    assert differences(GUESTS_CPU, here, [0x277, 0x48], [0x277, 0x48]) == missing
    assert differences(GUESTS_CPU, here, [0x277, 0x48], [0x277]) == [*missing, "MSR 0x48"]


def test_components() -> None:
    assert components(GUESTS_CPU) == {2: Component(576, 256)}
