"""Disks at NBD servers, and qcow2 images that a guest writes through qemu-nbd: beside a model, and with servers that
die, hang, and refuse.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import find_program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbdservers import has_ended, servers_of, serving, wait_until
from virtiodriver import Driver

from dwcvmm.errors import ConfigError, DwcVmmError, ExitCode, HostError
from dwcvmm.nbd import client, library, server
from dwcvmm.nbd.address import parse_uri
from dwcvmm.pc.devices.disk import DiskConfig, open_disk, parse_disk
from dwcvmm.pc.devices.virtio.block import (
    DISCARD,
    DO_DISCARD,
    DO_FLUSH,
    DO_ZERO,
    FLUSH,
    HEADER,
    IN,
    IO_ERROR,
    OK,
    OUT,
    RANGE,
    UNMAP,
    WRITE_ZEROES,
    Block,
)
from dwcvmm.pc.devices.virtio.pci import VERSION_1

pytestmark = pytest.mark.usefixtures("nbd")

SECTORS = 2048
FEATURES = VERSION_1 | FLUSH | DISCARD | WRITE_ZEROES


def make(path: Path, *options: str, sectors: int = SECTORS) -> Path:
    program = find_program("qemu-img", "qemu-utils")
    subprocess.run([program, "create", "-q", "-f", "qcow2", *options, str(path), str(sectors * 512)], check=True)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make(tmp_path / "disk.qcow2")


def same(image: Path, content: bytes, tmp_path: Path) -> bool:
    """Whether an image is sound, and has this content."""
    model = tmp_path / "model"
    model.write_bytes(content)
    subprocess.run(["qemu-img", "check", "-q", image], check=True)
    command = ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", str(model), str(image)]
    return subprocess.run(command).returncode == 0


class Guest:
    """A driver with a disk. `discarded`: sectors in which zeros can be as well as what `model` has."""

    def __init__(self, config: DiskConfig, features: int = FEATURES) -> None:
        self.disk = open_disk(config)
        self.driver = Driver(Block(self.disk, ""), features)
        self.model = bytearray(self.disk.read(0, self.disk.size_bytes))
        self.discarded: set[int] = set()

    def ask(self, kind: int, sector: int = 0, data: bytes = b"") -> int:
        return self.driver.request([(HEADER.pack(kind, 0, sector), False), (data, False), (b"\xff", True)])[1][2][0]

    def read(self, sector: int, sectors: int) -> tuple[int, bytes]:
        parts = [(HEADER.pack(IN, 0, sector), False), (bytes(sectors * 512), True), (b"\xff", True)]
        _, (_, data, status) = self.driver.request(parts)
        return status[0], data

    def write(self, sector: int, data: bytes) -> int:
        status = self.ask(OUT, sector, data)
        if status == OK:
            self._set(sector, data)
        return status

    def clear(self, kind: int, sector: int, sectors: int, flags: int = 0) -> None:
        assert self.ask(kind, 0, RANGE.pack(sector, sectors, flags)) == OK
        if kind == DO_ZERO:
            self._set(sector, bytes(sectors * 512))
        else:
            self.discarded.update(range(sector, sector + sectors))

    def _set(self, sector: int, data: bytes) -> None:
        self.model[sector * 512 : sector * 512 + len(data)] = data
        self.discarded.difference_update(range(sector, sector + len(data) // 512))

    def check(self, sector: int, sectors: int) -> None:
        status, data = self.read(sector, sectors)
        assert status == OK
        for at in range(sectors):
            found = data[at * 512 : at * 512 + 512]
            place = (sector + at) * 512
            if sector + at in self.discarded and found == bytes(512):
                self._set(sector + at, found)
            assert found == self.model[place : place + 512]

    def close(self) -> None:
        self.disk.close()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "flush", "discard", "zero", "unmap"]),
        st.integers(0, SECTORS - 1),
        st.one_of(st.integers(1, 16), st.integers(1, 600)),
        st.integers(1, 255),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a raw image is served, too."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "raw").write_bytes(bytes(SECTORS * 512))
    options = ("--discard=unmap", "--export-name=a b")
    with serving(find_program("qemu-nbd", "qemu-utils"), folder / "raw", folder / "socket", *options):
        yield folder


@pytest.mark.parametrize("kind", ["raw", "qcow2", "small clusters", "backing file", "served"])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_any_requests_beside_a_model(kind: str, tmp_path: Path, folder: Path, operations: list[Any]) -> None:
    path, base = tmp_path / "disk", tmp_path / "base"
    config = DiskConfig(path, format="qcow2")
    if kind == "raw":
        path.write_bytes(random.Random(1).randbytes(SECTORS * 512))
        config = DiskConfig(path, format="raw")
    elif kind == "served":
        config = parse_disk(f"nbd+unix:///a%20b?socket={folder}/socket")
    elif kind == "backing file":
        base.write_bytes(random.Random(2).randbytes(SECTORS * 512))
        make(path, "-F", "raw", "-b", str(base))
    else:
        make(path, "-o", "cluster_size=512" if kind == "small clusters" else "lazy_refcounts=on")
    guest = Guest(config)
    try:
        for what, sector, sectors, byte in operations:
            sectors = min(sectors, SECTORS - sector)
            if what == "read":
                guest.check(sector, sectors)
            elif what == "write":
                assert guest.write(sector, bytes([byte]) * 512 * sectors) == OK
            elif what == "flush":
                assert guest.ask(DO_FLUSH) == OK
            else:
                guest.clear(DO_DISCARD if what == "discard" else DO_ZERO, sector, sectors, UNMAP * (what == "unmap"))
        guest.check(0, SECTORS)
    finally:
        guest.close()
    if kind in ("raw", "served"):
        assert (path if kind == "raw" else folder / "raw").read_bytes() == guest.model
    else:
        assert same(path, bytes(guest.model), tmp_path)


def test_room_is_given_back(image: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * SECTORS * 512)
    for path in (raw, image):
        guest = Guest(DiskConfig(path))
        for sector in range(0, SECTORS, 256):
            assert guest.write(sector, b"y" * 256 * 512) == OK
        full = path.stat().st_blocks
        guest.clear(DO_DISCARD, 0, SECTORS // 2)
        guest.clear(DO_ZERO, SECTORS // 2, SECTORS // 4, UNMAP)
        guest.clear(DO_ZERO, SECTORS * 3 // 4, SECTORS // 4)
        guest.close()
        assert path.stat().st_blocks < full * 0.6


@pytest.mark.parametrize("seed", range(4))
def test_a_server_that_is_killed_loses_nothing_that_was_flushed(image: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    guest = Guest(DiskConfig(image))
    (pid,) = servers_of(image)

    def write() -> None:
        assert guest.write(chance.randrange(SECTORS - 64), chance.randbytes(512 * chance.randrange(1, 64))) == OK

    for _ in range(40):
        write()
    assert guest.ask(DO_FLUSH) == OK
    flushed = bytes(guest.model)
    for _ in range(chance.randrange(20)):
        write()
    os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        assert guest.read(0, 8)[0] == IO_ERROR
        assert guest.ask(OUT, 0, b"lost" * 128) == IO_ERROR
        assert guest.ask(DO_FLUSH) == IO_ERROR
        assert guest.ask(DO_ZERO, 0, RANGE.pack(0, 8, 0)) == IO_ERROR
    guest.close()
    subprocess.run(["qemu-img", "check", "-q", "-r", "all", image], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, tmp_path / "raw"], check=True)
    found = (tmp_path / "raw").read_bytes()
    for at in range(0, len(flushed), 512):
        assert found[at : at + 512] in (flushed[at : at + 512], bytes(guest.model[at : at + 512]))


def test_a_server_that_hangs_is_an_error_and_not_waited_for_again(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(DiskConfig(image))
    (pid,) = servers_of(image)
    monkeypatch.setattr(client, "ANSWER_S", 0.5)
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert guest.ask(OUT, 0, b"x" * 512) == IO_ERROR
        assert 0.4 < time.monotonic() - started < 5
        assert guest.read(0, 1)[0] == IO_ERROR
        assert time.monotonic() - started < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    assert wait_until(lambda: has_ended(pid)), "its client has gone"
    guest.close()


def test_what_a_server_has_no_room_for_is_an_error_of_this_request_only(tmp_path: Path) -> None:
    """A limit of the size of its files, as no space would be."""
    path = make(tmp_path / "disk.qcow2", sectors=1 << 14)
    script = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from dwcvmm.pc.devices.disk import DiskConfig, open_disk
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
disk = open_disk(DiskConfig(Path({str(path)!r})))
disk.write(0, b"1" * 512)
try:
    disk.write(65536, b"2" * (2 << 20))
except OSError as error:
    print(error.errno)
print(disk.read(0, 3))
disk.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    number, content = done.stdout.split()
    assert int(number) > 0
    assert content == "b'111'"


@pytest.mark.parametrize("when", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_us_however_we_end(image: Path, tmp_path: Path, when: signal.Signals) -> None:
    script = (
        "import sys, time; from pathlib import Path; from dwcvmm.pc.devices.disk import DiskConfig, open_disk;"
        "disk = open_disk(DiskConfig(Path(sys.argv[1]))); disk.write(0, b'y' * 512); print('ready', flush=True);"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, image], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        (pid,) = servers_of(image)
        assert os.getsid(pid) == pid, "Ctrl-C at the terminal is not for it"
        process.send_signal(when)
    assert wait_until(lambda: has_ended(pid))
    assert same(image, b"y" * 512 + bytes((SECTORS - 1) * 512), tmp_path)


def test_the_image_is_complete_and_nothing_is_left_when_a_disk_is_closed(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / ("long" * 40)
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    guest = Guest(DiskConfig(image))
    assert list(temporary.iterdir()) == [], "no name by which another could connect"
    assert guest.write(3, b"z" * 512) == OK
    (pid,) = servers_of(image)
    guest.close()
    assert has_ended(pid)
    assert same(image, bytes(guest.model), tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_signals_that_are_blocked_here_reach_the_server(image: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])
    try:
        guest = Guest(DiskConfig(image))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    (pid,) = servers_of(image)
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert not blocked & 1 << signal.SIGTERM - 1
    assert not blocked & 1 << signal.SIGHUP - 1
    guest.close()


def test_an_image_that_names_other_files_must_be_called_qcow2(tmp_path: Path) -> None:
    """Else a guest could write such an image to its raw disk, and read any file of the host after the next start."""
    secret, path = tmp_path / "secret", tmp_path / "disk"
    secret.write_bytes(b"s" * 4096)
    make(path, "-F", "raw", "-b", str(secret), sectors=8)
    with pytest.raises(ConfigError, match=r"has a backing file .*; with ,format=qcow2 qemu-nbd takes it"):
        open_disk(DiskConfig(path))
    guest = Guest(DiskConfig(path, format="qcow2"))
    assert guest.model == secret.read_bytes()
    assert guest.write(0, b"t" * 512) == OK
    guest.close()
    assert secret.read_bytes() == b"s" * 4096
    assert same(path, b"t" * 512 + b"s" * 3584, tmp_path)


def test_names_mean_files_only(tmp_path: Path) -> None:
    for name in ("a,b", "nbd:x", "file.x=1,,y", "json:{}", "-x", "\N{SNOWMAN} "):
        guest = Guest(DiskConfig(make(tmp_path / name)))
        assert guest.write(0, b"n" * 512) == OK
        guest.close()


def test_what_is_no_image_is_refused_with_the_reason_of_qemu(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    with pytest.raises(ConfigError, match=r"Image is not in qcow2 format \(qemu-nbd\)"):
        open_disk(DiskConfig(path, format="qcow2"))
    make(path, "-F", "raw", "-b", "/nonexistent", "-u")
    with pytest.raises(ConfigError, match="/nonexistent"):
        open_disk(DiskConfig(path, format="qcow2"))


def test_an_image_is_locked(image: Path) -> None:
    guest = Guest(DiskConfig(image))
    with pytest.raises(ConfigError, match="another process uses it"):
        open_disk(DiskConfig(image))
    guest.close()
    Guest(DiskConfig(image)).close()


def test_addresses() -> None:
    address = parse_uri("nbd+unix:///a/b%20c?socket=/run/x%3Fy")
    assert (address.export, address.path) == ("a/b c", "/run/x?y")
    address = parse_uri("nbd://[::1]:99/")
    assert (address.export, address.path, address.host, address.port) == ("", None, "::1", 99)
    assert parse_uri("nbd://h").port == 10809
    config = parse_disk("nbd+unix:///?socket=/run/a,,b,snapshot")
    assert str(config.path) == "nbd+unix:///?socket=/run/a,b"
    assert config.snapshot
    for wrong in (
        "nbd+unix:///", "nbd+unix:///?socket=", "nbd+unix:///?socket=x", "nbd+unix://h/?socket=/x", "nbd+unix:///?socket=/x&a=b",
        "nbd:///",
        "nbds://h/", "nbd+vsock://1/", "nbd://h:99999/", "nbd://h/%ff", "nbd://[::1/", "nbd://h/?socket=/x",
        "nbd+unix:///?socket", "nbd+unix:///?socket=/x,format=raw",
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"NBD disk is nbd\+unix:///EXPORT|has no format"):
            parse_disk(wrong)


@given(st.text().map(lambda text: f"nbd+unix://{text}"))
def test_any_address_is_taken_or_refused(text: str) -> None:
    try:
        assert parse_uri(text).path
    except ConfigError as error:
        assert "NBD disk is" in str(error)


def test_a_server_that_is_named(tmp_path: Path, qemu_nbd: str) -> None:
    raw, socket = tmp_path / "raw", tmp_path / "socket"
    raw.write_bytes(b"r" * 4096)
    uri = f"nbd+unix:///?socket={socket}"
    with pytest.raises(HostError, match=r"no connection: No such file.*start an NBD server") as missing:
        open_disk(parse_disk(uri))
    assert missing.value.exit_code == ExitCode.HOST_UNFIT
    with serving(qemu_nbd, raw, socket) as process:
        with pytest.raises(ConfigError, match="server has no export named 'other'"):
            open_disk(parse_disk(uri.replace("///", "///other")))
        guest = Guest(parse_disk(f"{uri},snapshot"))
        assert guest.write(0, b"w" * 512) == OK
        guest.close()
        assert raw.read_bytes() == b"r" * 4096
        guest = Guest(parse_disk(uri))
        assert guest.write(0, b"w" * 512) == OK
        assert guest.ask(DO_FLUSH) == OK
        process.kill()
        assert guest.write(0, b"v" * 512) == IO_ERROR
        guest.close()
    assert raw.read_bytes() == b"w" * 512 + b"r" * 3584
    socket.unlink()
    with serving(qemu_nbd, raw, socket, "--read-only"):
        with pytest.raises(ConfigError, match="does not allow writes; add ,readonly or ,snapshot"):
            open_disk(parse_disk(uri))
        guest = Guest(parse_disk(f"{uri},readonly"), VERSION_1 | FLUSH)
        assert guest.write(0, b"x" * 512) == IO_ERROR
        guest.check(0, 8)
        guest.close()


def test_a_server_that_comes_back(image: Path, tmp_path: Path, qemu_nbd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time that a request waits, and after it. What was written before is there, though never flushed: a
    qcow2 image, as its tables are lost with a server that still keeps them.
    """
    socket = tmp_path / "a,b"
    monkeypatch.setattr(server, "RECONNECT_S", 2)
    config = parse_disk(f"nbd+unix:///?socket={tmp_path}/a,,b,reconnect")

    def content() -> bytes:
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, tmp_path / "raw"], check=True)
        return (tmp_path / "raw").read_bytes()

    with pytest.raises(HostError, match="start an NBD server"):
        open_disk(config)
    with serving(qemu_nbd, image, socket, "--format=qcow2"):
        guest = Guest(config)
        assert guest.write(0, b"1" * 512) == OK
    assert content() == guest.model
    started = time.monotonic()
    assert guest.write(1, b"2" * 512) == IO_ERROR
    assert time.monotonic() - started > 1
    socket.unlink()
    with serving(qemu_nbd, image, socket, "--format=qcow2"):
        assert wait_until(lambda: guest.write(1024, b"3" * 512) == OK)
        guest.check(0, SECTORS)
    assert content() == guest.model
    socket.unlink()
    later = f"sleep 0.5; exec {qemu_nbd} --persistent --format=qcow2 --socket='{socket}' '{image}'"
    with subprocess.Popen(["sh", "-c", later]) as again:
        try:
            assert guest.write(1536, b"4" * 512) == OK, "it has waited"
            guest.check(0, SECTORS)
        finally:
            again.kill()
    guest.close()
    assert content() == guest.model


def test_a_server_at_a_port(tmp_path: Path, qemu_nbd: str) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"r" * 4096)
    port = 20000 + os.getpid() % 20000
    command = [qemu_nbd, "--format=raw", "--bind=127.0.0.1", f"--port={port}", "--persistent", str(raw)]
    with subprocess.Popen(command) as process:
        try:
            opened: list[Guest] = []

            def answers() -> bool:
                try:
                    opened.append(Guest(parse_disk(f"nbd://127.0.0.1:{port}/")))
                except HostError:
                    return False
                return True

            assert wait_until(answers)
            assert opened[0].write(7, b"p" * 512) == OK
            opened[0].close()
        finally:
            process.kill()
    assert raw.read_bytes() == b"r" * 3584 + b"p" * 512


GREETING = b"NBDMAGICIHAVEOPT" + bytes([0, 3])
REPLY = struct.pack(">QI", 0x3E889045565A9, 7)  # to NBD_OPT_GO


@settings(max_examples=200)
@given(st.sampled_from([b"", b"NBDMAGIC", GREETING, GREETING + REPLY]), st.binary(max_size=200))
def test_a_server_that_says_anything(said: bytes, more: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(said + more)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError):
            client.NbdClient(ours)


def test_a_server_that_answers_byte_by_byte_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.5)
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def trickle() -> None:
        for byte in GREETING * 100:
            if over.wait(0.1):
                return
            with suppress(BrokenPipeError):  # it was given up
                theirs.send(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"not answered for 0\.5 s"):
            client.NbdClient(ours)
        assert time.monotonic() - started < 1.5
    finally:
        over.set()
        thread.join()
        theirs.close()


def test_what_is_missing_is_named(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(server, "PROGRAM", "no-such-program")
        with pytest.raises(HostError, match=r"no no-such-program .*install it \(Debian: qemu-utils\)"):
            open_disk(DiskConfig(image))
    with monkeypatch.context() as patch:
        patch.setattr(library, "NAME", "libnone.so.0")
        library.library.cache_clear()
        for config in (DiskConfig(image), parse_disk("nbd+unix:///?socket=/x")):
            with pytest.raises(DwcVmmError, match=r"no libnbd on this host; install it \(Debian: libnbd0\)") as error:
                open_disk(config)
            assert error.value.exit_code == ExitCode.HOST_UNFIT
    library.library.cache_clear()
    Guest(DiskConfig(image)).close()
