"""Networks as users name them, and how their backends are opened."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import find_program
from passtprocesses import own_mtu, passts, wait_for

from dwcvmm.errors import ConfigError, HostError
from dwcvmm.net.backend import LENGTH, Backend
from dwcvmm.net.config import Forward, NetConfig, parse_net
from dwcvmm.net.opening import open_backend
from dwcvmm.net.stream import StreamBackend
from dwcvmm.net.tap import HEADER_BYTES
from dwcvmm.pc.virtiodevices import default_mac

MAC = bytes.fromhex("525400abcdef")
ARP = bytes.fromhex("ffffffffffff525400123456080600010800060400015254001234560a0000090000000000000a000001")


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("user", NetConfig()),
        ("user,forward=tcp:127.0.0.1:8080:80", NetConfig(forwards=(Forward("tcp", "127.0.0.1", 8080, 80),))),
        (
            "user,mac=52:54:00:AB:cd:ef,forward=udp:[::1]:53:5353,mtu=1500",
            NetConfig(forwards=(Forward("udp", "::1", 53, 5353),), mac=MAC, mtu=1500),
        ),
        ("tap=tap0", NetConfig(tap="tap0")),
        ("tap=tap0,mac=52:54:00:ab:cd:ef", NetConfig(tap="tap0", mac=MAC)),
        ("socket=/run/switch=1", NetConfig(path=Path("/run/switch=1"))),
    ],
)
def test_texts(text: str, config: NetConfig) -> None:
    assert parse_net(text) == config


@pytest.mark.parametrize(
    "text",
    [
        *("", "User", "user=", "user=x", "tap", "tap=", "tap=a/b", "tap=" + "x" * 16, "socket=", "none", "user,"),
        *("user,mac=1:2:3:4:5:6", "user,mac=01:00:00:00:00:00", "user,mac=00:00:00:00:00:00", "user,mac="),
        *("user,mtu=67", "user,mtu=65536", "user,mtu=-1", "user,mtu=1500,mtu=1500", "user,mtu=0x100"),
        *("user,forward=tcp:127.0.0.1:0:80", "user,forward=tcp:127.0.0.1:80:65536", "user,forward=tcp:80:80"),
        *("user,forward=sctp:127.0.0.1:80:80", "user,forward=tcp:host:80:80", "user,forward=tcp:1.2.3:80:80"),
        *("user,forward=tcp:127.0.0.1:80", "tap=tap0,forward=tcp:127.0.0.1:80:80", "user,other=1"),
        "user,forward=tcp:127.0.0.1:٨٠:80",
    ],
)
def test_texts_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_net(text)


def test_one_backend_a_device() -> None:
    with pytest.raises(ConfigError):
        NetConfig(tap="tap0", path=Path("/run/socket"))


def test_addresses_by_default() -> None:
    """The same in each run, different for each device, and for machines on the same bridge."""
    assert default_mac(NetConfig(), 0).hex(":") == "52:54:00:12:34:56"
    taps = {default_mac(NetConfig(tap=f"tap{n}"), 0) for n in range(50)}
    assert len({*taps, default_mac(NetConfig(), 0), default_mac(NetConfig(), 1)}) == 52
    assert all(mac.startswith(b"\x52\x54\x00") for mac in taps)


def test_a_socket_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(ConfigError):
        open_backend(NetConfig(path=path))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        backend = open_backend(NetConfig(path=path))
        with listening.accept()[0] as far:
            backend.send(memoryview(LENGTH.pack(len(ARP)) + ARP))
            assert far.recv(100) == LENGTH.pack(len(ARP)) + ARP
        backend.close()


def test_no_passt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HostError, match="Debian: passt"):
        open_backend(NetConfig())


def received(backend: Backend, wanted: bytes) -> bytes:
    """What comes, up to something that is wanted in it."""
    space, got = memoryview(bytearray(1 << 18)), bytearray()

    def look() -> bool:
        got.extend(space[: backend.receive(space)])
        return bool(got) and wanted in got

    wait_for(look)
    return bytes(got)


def test_passt_answers_and_is_gone_with_us() -> None:
    """Its answer to ARP is from the gateway, whichever that is; the request is for an address that it takes for one."""
    find_program("passt", "passt")
    mtu = own_mtu()
    backend = open_backend(NetConfig(mtu=mtu))
    assert (backend.name, backend.mtu) == ("passt", mtu)
    assert len(passts(mtu)) == 1
    backend.send(memoryview(LENGTH.pack(len(ARP)) + ARP))
    got = received(backend, b"")
    (length,) = LENGTH.unpack_from(got)
    assert got[4:10] == ARP[6:12], "to the address that has asked"
    assert len(got) >= 4 + length
    backend.close()
    wait_for(lambda: not passts(mtu))


def test_a_port_that_passt_cannot_take_is_an_error_with_a_remedy() -> None:
    find_program("passt", "passt")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        forward = Forward("tcp", "127.0.0.1", taken.getsockname()[1], 80)
        mtu = own_mtu()
        with pytest.raises(HostError, match="forwarded ports free"):
            open_backend(NetConfig(forwards=(forward,), mtu=mtu))
    wait_for(lambda: not passts(mtu))


def test_a_tap_that_cannot_be_had() -> None:
    """Whatever this machine lacks: the message says what to do."""
    with pytest.raises((HostError, ConfigError)) as caught:
        open_backend(NetConfig(tap="lo"))
    assert str(caught.value)


def test_a_stream_in_pieces() -> None:
    """What was begun is ended once there is room, and what comes after the other side's end is dropped."""
    ours, far = socket.socketpair()
    backend = StreamBackend(ours, "test", None)
    frame = os.urandom(60_000)
    stream = LENGTH.pack(len(frame)) + frame
    for _ in range(10):
        assert backend.send(memoryview(stream)).frames == 0
    got = b""
    far.setblocking(False)
    while len(got) < 10 * len(stream):
        got += far.recv(1 << 16)
        backend.attend()
    assert got == stream * 10
    far.close()
    backend.attend()
    assert not backend.connected
    drops = backend.send(memoryview(stream))
    assert (drops.frames, drops.bytes) == (1, len(frame))
    backend.close()


@pytest.fixture
def tap() -> Iterator[str]:
    """An interface that is up, with the address 10.199.0.1, for this test alone."""
    ip, name = find_program("ip", "iproute2"), f"dwct{os.getpid() % 100000}"
    if not Path("/dev/net/tun").exists() or subprocess.run([ip, "tuntap", "add", name, "mode", "tap"]).returncode:
        pytest.skip("this user cannot make tap interfaces here")
    try:
        subprocess.run([ip, "address", "add", "10.199.0.1/24", "dev", name], check=True)
        subprocess.run([ip, "link", "set", name, "up", "mtu", "1400"], check=True)
        yield name
    finally:
        subprocess.run([ip, "link", "del", name])


def of_guest(frame: bytes, header: bytes = bytes(HEADER_BYTES)) -> memoryview:
    return memoryview(LENGTH.pack(len(header + frame)) + header + frame)


def test_a_tap_interface_carries_frames(tap: str) -> None:
    """A frame that is sent arrives at the host's side of the interface, and one that the host sends comes out."""
    backend = open_backend(NetConfig(tap=tap))
    assert (backend.name, backend.mtu) == ("tap", 1400)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as host:
        host.bind((tap, 0x88B5))
        host.settimeout(10)
        frame = bytes.fromhex("ffffffffffff525400abcdef88b5") + os.urandom(100)
        assert backend.send(of_guest(frame)).frames == 0
        assert host.recv(2000) == frame
        drops = backend.send(of_guest(frame, b"\1\xff" + bytes(10)))
        assert (drops.frames, drops.bytes) == (1, len(frame)), "a header that cannot be"
        answer = MAC + bytes(6) + b"\x88\xb5" + os.urandom(300)
        host.send(answer)
        assert answer in received(backend, answer)
    with pytest.raises(HostError, match="another program has it"):
        open_backend(NetConfig(tap=tap))
    backend.close()


def test_the_host_computes_checksums_of_what_a_tap_gets(tap: str) -> None:
    """The guest leaves the sum of UDP's pseudo-header, and says where the rest of it belongs (virtio 1.2, 5.1.6.2)."""
    backend = open_backend(NetConfig(tap=tap))
    assert backend.offloads
    words = b"words of a guest"
    pseudo = bytes((10, 199, 0, 2, 10, 199, 0, 1, 0, 17)) + (8 + len(words)).to_bytes(2, "big")
    partial = sum(struct.unpack(">6H", pseudo))
    partial = (partial & 0xFFFF) + (partial >> 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("10.199.0.1", 0))
        host.settimeout(10)
        udp = struct.pack(">HHHH", 9, host.getsockname()[1], 8 + len(words), partial) + words
        address = bytes.fromhex(Path(f"/sys/class/net/{tap}/address").read_text().strip().replace(":", ""))
        frame = address + MAC + b"\x08\x00" + ip_header(len(udp), pseudo[:8]) + udp
        assert backend.send(of_guest(frame, struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 6, 0))).frames == 0
        assert host.recv(2000) == words
    backend.close()


def ip_header(length: int, addresses: bytes) -> bytes:
    """20 bytes, with their checksum."""
    head = struct.pack(">BBHHHBB", 0x45, 0, 20 + length, 1, 0, 64, 17)
    total = sum(struct.unpack(">9H", head + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    return head + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + addresses
