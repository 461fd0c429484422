"""The walk of a guest's page tables against KVM_TRANSLATE, in each mode of paging, with holes and large pages."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from conftest import needs_kvm

from dwcvmm.core.kvmstructs import Sregs
from dwcvmm.element.config import EngineConfig, Strategy
from dwcvmm.element.hostprobe import kvm_module
from dwcvmm.guest.entry import CR0_ET, CR0_NE, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME
from dwcvmm.pc.pc import PC, PcConfig

CODE, ROOT_TABLE, TABLES = 0x100000, 0x200000, 0x201000
RAM_BYTES = 16 << 20
LOOP = b"\xe6\x80\xeb\xfc"  # out 0x80, al; jmp to it: the same in all modes
PRESENT_WRITE_USER, PAGE_SIZE = 7, 1 << 7
CR4_PSE = 1 << 4
# entry bytes, index bits by level from the top, levels that may hold large pages (1: the page table), CR4, EFER
MODES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], int, int]] = {
    "off": (8, (), (), 0, 0),
    "32-bit": (4, (10, 10), (2,), CR4_PSE, 0),
    "32-bit without PSE": (4, (10, 10), (), 0, 0),
    "PAE": (8, (2, 9, 9), (2,), CR4_PAE, 0),
    "4-level": (8, (9, 9, 9, 9), (2,), CR4_PAE, EFER_LME | EFER_LMA),
}


def write_tables(machine: PC, mode: str, chance: random.Random) -> None:
    """Two tables a level; each entry is a hole, a large page, or leads on. The page of the code maps itself."""
    size, widths, large, _, _ = MODES[mode]
    form = "<I" if size == 4 else "<Q"
    for depth, width in enumerate(widths):
        level, shift = len(widths) - depth, 12 + sum(widths[depth + 1 :])
        for table in range(1 if depth == 0 else 2):
            at = ROOT_TABLE if depth == 0 else TABLES + 0x2000 * (depth - 1) + 0x1000 * table
            for index in range(1 << width):
                below = TABLES + 0x2000 * depth + 0x1000 * chance.randrange(2)
                value = below | PRESENT_WRITE_USER
                pae_root = mode == "PAE" and depth == 0  # has reserved bits where others have rights
                if pae_root:
                    value = below | 1
                elif level == 1:
                    value = chance.randrange(RAM_BYTES >> 12) << 12 | PRESENT_WRITE_USER
                elif level in large and chance.random() < 0.3:
                    value = (chance.randrange(RAM_BYTES) >> shift << shift) | PRESENT_WRITE_USER | PAGE_SIZE
                if chance.random() < 0.2 and not pae_root:
                    value &= ~1
                if index == (CODE >> shift & (1 << width) - 1):  # by the first table of each level
                    value = CODE | PRESENT_WRITE_USER if level == 1 else TABLES + 0x2000 * depth | PRESENT_WRITE_USER
                    value &= ~6 if pae_root else -1
                machine.memory.write(at + size * index, struct.pack(form, value))


def start(guests: Path, mode: str, chance: random.Random) -> PC:
    machine = PC(
        PcConfig(guests / "ports.bin", memory_bytes=RAM_BYTES, engine=EngineConfig(strategy=Strategy.OFF)),
    )
    machine.memory.write(CODE, LOOP)
    write_tables(machine, mode, chance)
    vcpu = machine.replicas.vcpus[0]
    sregs = vcpu.get(Sregs)
    _, widths, _, sregs.cr4, efer = MODES[mode]
    sregs.cr0, sregs.cr3, sregs.efer = CR0_PE | CR0_ET | CR0_NE | (CR0_PG if widths else 0), ROOT_TABLE, efer
    if not efer:
        sregs.cs.l, sregs.cs.db = 0, 1
    vcpu.set(sregs)
    machine.start()
    machine.run(2)
    return machine


@needs_kvm
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", MODES)
def test_as_kvm_does(guests: Path, mode: str, seed: int) -> None:
    if kvm_module() == "kvm_pvm" and mode not in ("off", "4-level"):
        pytest.skip("kvm_pvm: a vCPU with paging and not in long mode shuts down")
    chance = random.Random(f"{mode} {seed}")
    machine = start(guests, mode, chance)
    try:
        replica, vcpu = machine.core.replicas[0], machine.replicas.vcpus[0]
        assert replica.translate(CODE) == CODE
        bits = {"4-level": 48, "off": 25}.get(mode, 32)
        found = 0
        for _ in range(1500):
            linear = chance.getrandbits(bits)
            if linear >> 47:
                linear |= 0xFFFF << 48
            ours, kvms = replica.translate(linear), vcpu.translate(linear)
            assert ours == (kvms if kvms is not None and kvms < RAM_BYTES else None), hex(linear)
            found += ours is not None
        assert found > 300
    finally:
        machine.close()
