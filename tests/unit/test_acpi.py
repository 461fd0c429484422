"""The ACPI tables: sums, links, what kernels look for, and what ACPICA's disassembler makes of them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_machine_parts import MIB, memory_of

from dwcvmm.pc import acpi, aml, layout

LAST_OF_OLD_RSDP = 20


def tables(serial_ports: int = 1) -> dict[bytes, bytes]:
    """By signature, found as a kernel does: from the root pointer."""
    memory, ram = memory_of(2 * MIB)
    acpi.place_firmware(memory, serial_ports)
    pointer = bytes(ram[layout.BIOS : layout.BIOS + 36])
    assert pointer[:8] == b"RSD PTR "
    assert sum(pointer[:LAST_OF_OLD_RSDP]) & 0xFF == sum(pointer) & 0xFF == 0
    (rsdt_at,), (xsdt_at,) = struct.unpack_from("<I", pointer, 16), struct.unpack_from("<Q", pointer, 24)
    found = {}

    def take(at: int) -> bytes:
        length = struct.unpack_from("<I", ram, at + 4)[0]
        found[bytes(ram[at : at + 4])] = bytes(ram[at : at + length])
        return bytes(ram[at + 36 : at + length])

    old, new = take(rsdt_at), take(xsdt_at)
    linked = struct.unpack(f"<{len(old) // 4}I", old)
    assert linked == struct.unpack(f"<{len(new) // 8}Q", new)
    for at in linked:
        take(at)
    fadt = found[b"FACP"]
    for at in (*struct.unpack_from("<II", fadt, 36), *struct.unpack_from("<QQ", fadt, 132)):
        take(at)
    assert struct.unpack_from("<I", fadt, 36)[0] % 64 == 0, "the FACS"
    return found


def test_sums_and_links() -> None:
    found = tables()
    assert set(found) == {b"RSDT", b"XSDT", b"FACP", b"FACS", b"DSDT", b"APIC", b"MCFG"}
    for signature, content in found.items():
        if signature != b"FACS":
            assert sum(content) & 0xFF == 0, signature
    assert len(found[b"FACP"]) == 244
    assert found[b"FACP"][91] == 4, "PM_TMR_LEN"
    assert struct.unpack_from("<Q", found[b"FACP"], 212)[0] == layout.PM_TIMER
    assert struct.unpack_from("<I", found[b"FACP"], 112)[0] & 1 << 4 == 0, "the power button is a fixed one"
    assert len(found[b"FACS"]) == 64


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_bios_data_area_names_the_serial_ports(count: int) -> None:
    memory, ram = memory_of(2 * MIB)
    acpi.place_firmware(memory, count)
    ports, (segment, equipment), (kib,) = (
        struct.unpack_from("<4H", ram, 0x400),
        struct.unpack_from("<HH", ram, 0x40E),
        struct.unpack_from("<H", ram, 0x413),
    )
    assert ports == (*(0x3F8, 0x2F8, 0x3E8, 0x2E8)[:count], *(0,) * (4 - count))
    assert (segment << 4, equipment >> 9 & 7, kib) == (0x9FC00, count, 639)


@pytest.mark.parametrize("serial_ports", [1, 4])
def test_acpica_reads_them(tmp_path: Path, serial_ports: int) -> None:
    iasl = shutil.which("iasl")
    if iasl is None:
        pytest.skip("there is no iasl: install acpica-tools")
    for signature, content in tables(serial_ports).items():
        if signature in (b"RSDT", b"XSDT"):
            continue
        file = tmp_path / f"{signature.decode()}.dat"
        file.write_bytes(content)
        done = subprocess.run([iasl, "-d", file], capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        for word in ("Error", "rror:", "arning", "nvalid", "ncorrect"):
            assert word not in said, said
    source = tmp_path / "DSDT.dsl"
    text = source.read_text()
    assert text.count('EisaId ("PNP0501")') == serial_ports
    assert [f"Device (COM{number})" in text for number in (1, 2, 3, 4)] == [n < serial_ports for n in range(4)]
    assert 'EisaId ("PNP0B00")' in text
    assert "_S5" in text and "0x03F8" in text and ("0x02E8" in text) == (serial_ports == 4)
    compiled = subprocess.run([iasl, "-p", tmp_path / "again", source], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stdout
    again = (tmp_path / "again.aml").read_bytes()
    assert again[36:] == tables(serial_ports)[b"DSDT"][36:], "what the compiler makes of it is what is here"


@given(st.integers(0, 2**20))
def test_package_lengths_count_themselves(length: int) -> None:
    encoded = aml.package_length(length)
    extra = encoded[0] >> 6
    assert len(encoded) == extra + 1
    value = encoded[0] & 0x3F if not extra else encoded[0] & 0xF | int.from_bytes(encoded[1:], "little") << 4
    assert value == length + len(encoded)


@pytest.mark.parametrize("value", [0, 1, 2, 0xFF, 0x100, 0xFFFF, 0x10000, 2**32 - 1, 2**32, 2**64 - 1])
def test_integers(value: int) -> None:
    encoded = aml.integer(value)
    size = {0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}.get(encoded[0], 0)
    assert len(encoded) == size + 1
    assert int.from_bytes(encoded[1:], "little") == value if size else encoded[0] == value
