"""virtio devices, driven as a guest drives them, well and badly."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pcimodel import BAR0, COMMAND, MEMORY_SPACE
from virtiodriver import BAR, BUFFERS, INDIRECT, NEXT, QUEUE_SIZE, RAM_BYTES, RINGS, STATUS, WRITE, Driver

from dwcvmm.core.enums import NEEDS_RESET, VirtioPart
from dwcvmm.pc.devices.disk import DiskConfig, open_disk
from dwcvmm.pc.devices.virtio.block import (
    DISCARD,
    DO_DISCARD,
    DO_FLUSH,
    DO_ZERO,
    FLUSH,
    GET_ID,
    HEADER,
    IN,
    IO_ERROR,
    MOST_RANGES,
    MOST_SECTORS,
    OK,
    OUT,
    RANGE,
    UNMAP,
    UNSUPPORTED,
    WRITE_ZEROES,
    Block,
)
from dwcvmm.pc.devices.virtio.console import RECEIVE, TRANSMIT, Console
from dwcvmm.pc.devices.virtio.pci import EVENT_IDX, INDIRECT_DESC, VERSION_1
from dwcvmm.pc.devices.virtio.rng import Rng

SECTORS = 64
PCI_CFG = 5  # virtio's number of the capability
ISR, NOTIFY, TABLE = VirtioPart.ISR, VirtioPart.NOTIFY, VirtioPart.TABLE


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(bytes([n]) * 512 for n in range(SECTORS)))
    return path


def block(path: Path, **options: Any) -> Driver:
    return Driver(Block(open_disk(DiskConfig(path, **options)), "serial"))


def read(driver: Driver, sector: int, length: int = 512) -> tuple[int, bytes, int]:
    used, parts = driver.request([(HEADER.pack(IN, 0, sector), False), (bytes(length), True), (b"\xff", True)])
    return used, parts[1], parts[2][0]


def write(driver: Driver, sector: int, data: bytes) -> int:
    return driver.request([(HEADER.pack(OUT, 0, sector), False), (data, False), (b"\xff", True)])[1][2][0]


def test_blocks_are_read_and_written(image: Path) -> None:
    driver = block(image)
    assert read(driver, 3, 1024) == (1025, b"\3" * 512 + b"\4" * 512, OK)
    assert write(driver, 3, b"new" + bytes(509)) == OK
    assert image.read_bytes()[3 * 512 : 3 * 512 + 3] == b"new"
    assert driver.request([(HEADER.pack(DO_FLUSH, 0, 0), False), (b"\xff", True)])[1][1] == bytes([OK])
    used, parts = driver.request([(HEADER.pack(GET_ID, 0, 0), False), (bytes(20), True), (b"\xff", True)])
    assert (used, parts[1].rstrip(b"\0"), parts[2][0]) == (21, b"serial", OK)
    assert driver.request([(HEADER.pack(99, 0, 0), False), (b"\xff", True)])[1][1] == bytes([UNSUPPORTED])


def clear(driver: Driver, kind: int, *ranges: tuple[int, int, int], more: bytes = b"") -> int:
    data = b"".join(RANGE.pack(*each) for each in ranges) + more
    return driver.request([(HEADER.pack(kind, 0, 0), False), (data, False), (b"\xff", True)])[1][2][0]


ALL = VERSION_1 | FLUSH | DISCARD | WRITE_ZEROES


def test_ranges_become_zeros(image: Path) -> None:
    driver = Driver(Block(open_disk(DiskConfig(image)), ""), ALL)
    expected = bytearray(image.read_bytes())
    assert clear(driver, DO_ZERO, (1, 2, 0), (10, 1, UNMAP), (5, 0, 0)) == OK
    assert clear(driver, DO_DISCARD, (20, 3, 0)) == OK
    for sector, sectors in ((1, 2), (10, 1), (20, 3)):
        expected[sector * 512 : (sector + sectors) * 512] = bytes(sectors * 512)
    assert image.read_bytes() == expected
    assert clear(driver, DO_ZERO, *[(n, 1, 0) for n in range(MOST_RANGES)]) == OK
    assert clear(driver, DO_ZERO, (0, SECTORS, UNMAP)) == OK
    assert image.read_bytes() == bytes(SECTORS * 512)


def test_zeros_where_the_file_system_has_no_such_operation(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dwcvmm.pc.devices.disk import imagefile

    def without(fd: int, mode: int, at: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(imagefile, "_fallocate", without)
    disk = open_disk(DiskConfig(image))
    assert not disk.can_discard
    driver = Driver(Block(disk, ""), ALL & ~DISCARD)
    assert clear(driver, DO_ZERO, (1, 2, 0), (4, 1, UNMAP)) == OK
    assert clear(driver, DO_DISCARD, (7, 1, 0)) == UNSUPPORTED
    content = image.read_bytes()
    assert content[512:1536] == bytes(1024) and content[2048:2560] == bytes(512) and content[3584:4096] == b"\7" * 512


@pytest.mark.parametrize("kind", [DO_DISCARD, DO_ZERO])
@pytest.mark.parametrize(
    ("ranges", "more", "status"),
    [
        ([(0, SECTORS + 1, 0)], b"", IO_ERROR),
        ([(SECTORS, 1, 0)], b"", IO_ERROR),
        ([(1 << 63, 1, 0)], b"", IO_ERROR),
        ([((1 << 64) - 1, 1, 0)], b"", IO_ERROR),
        ([(0, MOST_SECTORS + 1, 0)], b"", IO_ERROR),
        ([(0, 0xFFFFFFFF, 0)], b"", IO_ERROR),
        ([(0, 1, 0), (SECTORS - 1, 2, 0)], b"", IO_ERROR),
        ([(0, 1, 0)], b"part", IO_ERROR),
        ([(0, 1, 2)], b"", UNSUPPORTED),
        ([(0, 1, 0), (1, 1, 1 << 31)], b"", UNSUPPORTED),
        ([(n, 1, 0) for n in range(MOST_RANGES + 1)], b"", UNSUPPORTED),
        ([], b"x" * (1 << 20), UNSUPPORTED),
    ],
)
def test_hostile_ranges_change_nothing(
    image: Path, kind: int, ranges: list[tuple[int, int, int]], more: bytes, status: int
) -> None:
    before = image.read_bytes()
    driver = Driver(Block(open_disk(DiskConfig(image)), ""), ALL)
    assert clear(driver, kind, *ranges, more=more) == status
    assert image.read_bytes() == before
    assert read(driver, 3)[2] == OK


def test_what_was_not_offered_or_taken_is_not_done(image: Path) -> None:
    before = image.read_bytes()
    for config in (DiskConfig(image), DiskConfig(image, snapshot=True), DiskConfig(image, read_only=True)):
        disk = open_disk(config)
        driver = Driver(Block(disk, ""), VERSION_1)
        assert clear(driver, DO_DISCARD, (0, 1, 0)) == clear(driver, DO_ZERO, (0, 1, 0)) == UNSUPPORTED
        driver = Driver(Block(disk, ""), ALL)
        assert bool(driver.read_common(STATUS, 1) & 8) == config.writes, "offered only where the image is written to"
        disk.close()
    driver = Driver(Block(open_disk(DiskConfig(image)), ""), ALL)
    assert clear(driver, DO_DISCARD, (0, 1, UNMAP)) == UNSUPPORTED, "5.2.6.2: not of a discard"
    assert image.read_bytes() == before


def test_limits_of_ranges_are_in_the_configuration(image: Path) -> None:
    for snapshot, limits in ((False, (MOST_SECTORS, MOST_RANGES, 1)), (True, (0, 0, 0))):
        disk = open_disk(DiskConfig(image, snapshot=snapshot))
        config = Block(disk, "").config
        disk.close()
        assert len(config) == 60
        assert struct.unpack_from("<III", config, 36) == limits  # max_discard_sectors
        assert struct.unpack_from("<IIB", config, 48) == limits  # max_write_zeroes_sectors
        assert struct.unpack_from("<I", config, 20) == (512,)


def test_a_driver_without_flush_has_what_it_wrote_durable(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for features, expected in ((VERSION_1 | WRITE_ZEROES, 2), (ALL, 0)):
        disk = open_disk(DiskConfig(image))
        flushes: list[None] = []
        monkeypatch.setattr(disk, "flush", lambda flushes=flushes: flushes.append(None))
        driver = Driver(Block(disk, ""), features)
        assert write(driver, 0, bytes(512)) == clear(driver, DO_ZERO, (0, 1, 0)) == OK
        assert read(driver, 0)[2] == OK
        assert len(flushes) == expected
        disk.close()


def test_how_a_request_is_cut_does_not_matter(image: Path) -> None:
    driver = block(image)
    header = HEADER.pack(OUT, 0, 5)
    _, parts = driver.request(
        [(header[:5], False), (header[5:] + b"a" * 100, False), (b"b" * 412, False), (b"\xff", True)]
    )
    assert parts[3][0] == OK
    assert image.read_bytes()[5 * 512 : 6 * 512] == b"a" * 100 + b"b" * 412


@pytest.mark.parametrize(("sector", "length"), [(SECTORS, 512), (SECTORS - 1, 1024), (1 << 60, 512), (0, 100)])
def test_beyond_the_disk_is_an_error(image: Path, sector: int, length: int) -> None:
    before = image.read_bytes()
    driver = block(image)
    assert read(driver, sector, length)[2] == IO_ERROR
    assert write(driver, sector, b"x" * length) == IO_ERROR
    assert image.read_bytes() == before


def test_the_end_of_the_run_ends_a_long_request(tmp_path: Path) -> None:
    """A guest can ask for more than there is time for: hours of work on one request, and more of them."""
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 1 << 40)
    device = Block(open_disk(DiskConfig(path)), "")
    asked: list[None] = []

    def ended() -> bool:
        asked.append(None)
        return len(asked) > 3

    driver = Driver(device)
    driver.ram[BUFFERS : BUFFERS + HEADER.size] = HEADER.pack(IN, 0, 0)
    driver.describe(0, BUFFERS, HEADER.size, NEXT, 1)
    for head in (1, 2, 3):
        driver.describe(head, BUFFERS, 1 << 20, NEXT | WRITE, head + 1)
    driver.describe(4, BUFFERS, 1, WRITE)
    device.ended = ended
    driver.offer(0)
    driver.offer(0)
    driver.kick()
    assert len(asked) == 5, "two pieces of the first request were read, the second was not begun"
    assert driver.ram[BUFFERS] == IO_ERROR


def test_what_the_host_refuses_is_an_io_error(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = block(image)

    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    assert write(driver, 0, b"x" * 512) == IO_ERROR
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    assert write(driver, 0, b"x" * 512) == IO_ERROR
    monkeypatch.undo()
    os.truncate(image, 512)
    assert read(driver, 5)[2] == IO_ERROR


def test_a_short_write_goes_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    driver = block(image)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:100], at))
    assert write(driver, 2, bytes(range(256)) * 4) == OK
    assert image.read_bytes()[1024:2048] == bytes(range(256)) * 4


def test_read_only_and_snapshot_leave_the_file(image: Path) -> None:
    before = image.read_bytes()
    assert write(block(image, read_only=True), 0, b"x" * 512) == IO_ERROR
    driver = block(image, snapshot=True)
    assert write(driver, 7, b"x" * 512) == OK
    assert read(driver, 6, 1536)[1] == b"\6" * 512 + b"x" * 512 + b"\10" * 512
    assert image.read_bytes() == before


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, SECTORS - 8), st.integers(1, 8), st.booleans(), st.binary(min_size=1, max_size=4))
    )
)
def test_a_snapshot_is_a_disk(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("disk") / "image"
    model = bytearray(os.urandom(SECTORS * 512))
    path.write_bytes(model)
    disk = open_disk(DiskConfig(path, snapshot=True))
    for sector, count, writes, seed in steps:
        at, length = sector * 512, count * 512
        if writes:
            data = (seed * length)[:length]
            disk.write(at, data)
            model[at : at + length] = data
        assert disk.read(at, length) == model[at : at + length]
    disk.close()


def test_random_numbers_and_console() -> None:
    used, parts = Driver(Rng()).request([(bytes(64), True)])
    assert used == 64
    assert parts[0] != bytes(64)
    said: list[bytes] = []
    console = Console(said.append)
    driver = Driver(console)
    driver.request([(b"hello ", False), (b"world", False)], TRANSMIT)
    assert b"".join(said) == b"hello world"
    console.receive(b"typed")
    used, parts = driver.request([(bytes(3), True)], RECEIVE)
    assert (used, parts[0]) == (3, b"typ")
    used, parts = driver.request([(bytes(9), True)], RECEIVE)
    assert (used, parts[0][:2]) == (2, b"ed")


def test_the_interrupt_pin_is_a_level(image: Path) -> None:
    driver = block(image)
    read(driver, 0)
    assert driver.asserted
    assert driver.pci.read(6, 2) & 8
    assert driver.bus.read(BAR + ISR, 1) == 1
    assert not driver.asserted
    read(driver, 0)
    driver.pci.write(COMMAND, 2, driver.pci.read(COMMAND, 2) | 1 << 10)
    assert not driver.asserted, "INTx is disabled"


def enable_msix(driver: Driver, value: int) -> int:
    at = driver.pci.read(0x34, 1)
    while driver.pci.read(at, 1) != 0x11:
        at = driver.pci.read(at + 1, 1)
    driver.pci.write(at + 2, 2, value)
    return driver.pci.read(at + 2, 2)


def test_messages(image: Path) -> None:
    driver = block(image)
    assert enable_msix(driver, 0x8000) == 0x8001, "two vectors"
    driver.start(VERSION_1)
    driver.available, driver.used = [0], [0]
    driver.ram[RINGS : RINGS + 0x3000] = bytes(0x3000)
    driver.common(22, 2, 0)
    driver.common(26, 2, 1)
    assert driver.read_common(26, 2) == 1
    driver.common(26, 2, 7)
    assert driver.read_common(26, 2) == 0xFFFF, "no such vector"
    driver.common(26, 2, 1)
    driver.bus.write(BAR + TABLE + 16, 8, 0xFEE00000)
    driver.bus.write(BAR + TABLE + 24, 4, 0x41)
    read(driver, 0)
    assert driver.messages == [], "the vector is masked"
    assert driver.bus.read(BAR + TABLE + 0x1000, 8) == 2, "and pending"
    driver.bus.write(BAR + TABLE + 28, 4, 0)
    assert driver.messages == [(0xFEE00000, 0x41)]
    enable_msix(driver, 0xC000)
    read(driver, 0)
    assert len(driver.messages) == 1, "all vectors are masked"
    enable_msix(driver, 0x8000)
    assert len(driver.messages) == 2
    assert not driver.asserted


def test_event_index(image: Path) -> None:
    driver = Driver(Block(open_disk(DiskConfig(image)), ""), VERSION_1 | EVENT_IDX)
    read(driver, 0)
    assert driver.asserted, "used_event was 0"
    driver.bus.read(BAR + ISR, 1)
    read(driver, 0)
    assert not driver.asserted, "the driver wants to hear of the first only"
    struct.pack_into("<H", driver.ram, RINGS + 0x1000 + 4 + 2 * QUEUE_SIZE, 2)
    read(driver, 0)
    assert driver.asserted
    assert struct.unpack_from("<H", driver.ram, RINGS + 0x2000 + 4 + 8 * QUEUE_SIZE) == (3,), "avail_event"


def test_indirect_descriptors(image: Path) -> None:
    driver = Driver(Block(open_disk(DiskConfig(image)), ""), VERSION_1 | INDIRECT_DESC)
    table = BUFFERS + 0x8000
    driver.ram[BUFFERS : BUFFERS + 16] = HEADER.pack(IN, 0, 9)
    for i, part in enumerate(
        ((BUFFERS, 16, NEXT, 1), (BUFFERS + 64, 512, NEXT | WRITE, 2), (BUFFERS + 32, 1, WRITE, 0))
    ):
        struct.pack_into("<QIHH", driver.ram, table + 16 * i, *part)
    driver.describe(4, table, 48, INDIRECT)
    driver.offer(4)
    driver.kick()
    assert driver.ram[BUFFERS + 64 : BUFFERS + 64 + 512] == b"\x09" * 512


def test_through_configuration_space(image: Path) -> None:
    driver = block(image)
    at = driver.pci.read(0x34, 1)
    while driver.pci.read(at, 1) != 9 or driver.pci.read(at + 3, 1) != PCI_CFG:
        at = driver.pci.read(at + 1, 1)
    driver.pci.write(at + 8, 4, STATUS)
    driver.pci.write(at + 12, 4, 1)
    assert driver.pci.read(at + 16, 1) == driver.read_common(STATUS, 1) != 0
    driver.pci.write(at + 16, 1, 0)
    assert driver.read_common(STATUS, 1) == 0
    driver.pci.write(at + 8, 4, 0xFFFFFFFF)
    driver.pci.write(at + 16, 1, 1)
    assert driver.read_common(STATUS, 1) == 0


def test_the_bar_moves(image: Path) -> None:
    driver = block(image)
    driver.pci.write(BAR0, 4, 0xFFFFFFFF)
    assert driver.pci.read(BAR0, 4) == 0xFFFF8000
    driver.pci.write(BAR0, 4, 0xD0000000)
    assert driver.bus.read(0xD0000000 + STATUS, 1) == 15
    assert driver.read_common(STATUS, 1) == 0xFF
    driver.pci.write(COMMAND, 2, 0)
    assert driver.bus.read(0xD0000000 + STATUS, 1) == 0xFF
    driver.pci.write(COMMAND, 2, MEMORY_SPACE)
    assert driver.bus.read(0xD0000000 + STATUS, 1) == 15


def test_features_must_be_offered(image: Path) -> None:
    for features in (0, VERSION_1 | 1 << 60, VERSION_1 | 1 << 5):
        driver = Driver(Block(open_disk(DiskConfig(image, snapshot=True)), ""), features)
        assert not driver.read_common(STATUS, 1) & 8


@pytest.mark.parametrize(
    "chain",
    [
        [(0, 16, NEXT, 0)],  # a loop
        [(RAM_BYTES - 8, 16, NEXT, 1), (0, 1, WRITE, 0)],  # out of RAM
        [(0xA0000, 16, NEXT, 1), (0, 1, WRITE, 0)],  # not RAM
        [((1 << 64) - 8, 16, NEXT, 1), (0, 1, WRITE, 0)],
        [(BUFFERS, 16, NEXT, QUEUE_SIZE)],  # no such descriptor
        [(BUFFERS, 8, NEXT, 1), (BUFFERS, 1, WRITE, 0)],  # half a header
        [(BUFFERS, 1, WRITE | NEXT, 1), (BUFFERS, 16, 0, 0)],  # the wrong order
        [(BUFFERS, 16, 0, 0)],  # no room for the status
        [(BUFFERS, 17, INDIRECT, 0)],
        [(BUFFERS, 0, INDIRECT, 0)],
        [(RINGS, 16, INDIRECT, 0)],  # an indirect one in an indirect one
    ],
)
def test_a_hostile_chain_ends_the_device_only(image: Path, chain: list[tuple[int, int, int, int]]) -> None:
    before = image.read_bytes()
    driver = block(image)
    for at, part in enumerate(chain):
        driver.describe(at, *part)
    ram = bytes(driver.ram[:RINGS]), bytes(driver.ram[BUFFERS:])
    driver.offer(0)
    driver.kick()
    assert driver.read_common(STATUS, 1) & NEEDS_RESET
    assert (bytes(driver.ram[:RINGS]), bytes(driver.ram[BUFFERS:])) == ram
    assert image.read_bytes() == before
    driver.start(VERSION_1)
    assert not driver.read_common(STATUS, 1) & NEEDS_RESET


def test_more_requests_than_room(image: Path) -> None:
    driver = block(image)
    struct.pack_into("<H", driver.ram, RINGS + 0x1002, QUEUE_SIZE + 1)
    driver.kick()
    assert driver.read_common(STATUS, 1) & NEEDS_RESET


accesses = st.lists(
    st.tuples(
        st.sampled_from((0, ISR, 0x2000, NOTIFY, TABLE, 0x5000)), st.integers(0, 80), st.sampled_from((1, 2, 4, 8)),
        st.booleans(), st.integers(0, (1 << 64) - 1),
    )
)  # fmt: skip


@given(accesses, st.binary(max_size=256))
def test_a_storm_of_accesses_does_no_harm(steps: list[tuple[int, int, int, bool, int]], descriptors: bytes) -> None:
    driver = Driver(Rng())
    driver.ram[RINGS : RINGS + len(descriptors)] = descriptors
    for part, at, size, writes, value in steps:
        if writes:
            driver.bus.write(BAR + part + at, size, value & (1 << 8 * size) - 1)
        else:
            assert 0 <= driver.bus.read(BAR + part + at, size) < 1 << 8 * size
        driver.transport.process()
    assert len(driver.ram) == RAM_BYTES
