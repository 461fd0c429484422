"""A tap interface of the host as a backend (Linux, Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from dwcvmm.errors import ConfigError, HostError
from dwcvmm.net.backend import LENGTH, Drops, split
from dwcvmm.net.config import NetConfig

DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
TUNSETVNETHDRSZ = 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
HEADER_BYTES = 12  # struct virtio_net_hdr with num_buffers
SIOCGIFMTU = 0x8921
IFREQ = struct.Struct("16sH22x")
MOST = 1 << 16  # bytes of a frame; a read into less would cut it
GONE = (errno.EBADFD, errno.ENODEV, errno.ENXIO)  # the interface was removed


class TapBackend:
    """An open queue of a tap interface: a read or a write is a frame behind its header. While the interface is down,
    what is sent is dropped. What comes is as on a wire: TUNSETOFFLOAD is never called, so headers say nothing.
    """

    offloads = True
    waits_for_room = False

    def __init__(self, fd: int, mtu: int | None) -> None:
        self.name, self.mtu, self.connected = "tap", mtu, True
        self._fd = fd
        self._header = bytearray(HEADER_BYTES)

    def fileno(self) -> int:
        return self._fd

    def send(self, frames: memoryview) -> Drops:
        drops = Drops()
        for frame in split(frames):
            try:
                os.write(self._fd, frame)
            except OSError as error:  # also for a header that cannot be
                self._note(error)
                drops.add(len(frame) - HEADER_BYTES)
        return drops

    def receive(self, space: memoryview) -> int:
        done = 0
        while self.connected and len(space) - done >= LENGTH.size + MOST:
            try:
                count = os.readv(self._fd, [self._header, space[done + LENGTH.size :]]) - HEADER_BYTES
            except OSError as error:
                self._note(error)
                break
            LENGTH.pack_into(space, done, count)
            done += LENGTH.size + count
        return done

    def attend(self) -> None:
        """The interface has a queue of its own, and its end is seen when it is used."""

    def _note(self, error: OSError) -> None:
        self.connected = self.connected and error.errno not in GONE

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.connected = -1, False


def open_tap(config: NetConfig) -> TapBackend:
    """Attach to the interface, or make it where the user may. Raises ConfigError or HostError."""
    name = config.tap or ""
    make = f"make it for this user, as root: ip tuntap add {name} mode tap user $USER && ip link set {name} up"
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise HostError(f"there is no {DEVICE}", "load the kernel's module: modprobe tun") from error
        raise HostError(f"{DEVICE}: {error.strerror}", make) from error
    try:
        fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER_BYTES))
        return TapBackend(fd, config.mtu or _mtu(name))
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EINVAL:
            raise ConfigError(f"{name} is no tap interface, or one with several queues") from error
        busy = error.errno == errno.EBUSY
        remedy = "another program has it: give each machine one of its own" if busy else make
        raise HostError(f"tap interface {name}: {error.strerror}", remedy) from error


def _mtu(name: str) -> int:
    """Bytes of payload that the interface takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, SIOCGIFMTU, struct.pack("16si20x", name.encode(), 0))
    return int(struct.unpack("16si20x", answer)[1])
