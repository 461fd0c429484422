"""What is in the files of a saved machine, by name. VERSION is raised with any change: another version is refused."""

from __future__ import annotations

from typing import Any

import msgspec

from dwcvmm.core.kvmstructs import CpuidEntry
from dwcvmm.version import VERSION as PROGRAM

KIND = "dwcvmm-saved-machine"
VERSION = 2


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes are base64 in JSON."""


def kind_and_version(text: bytes) -> tuple[object, object]:
    """Of a file that may be of another version, whose other fields are not looked at. Raises msgspec.MsgspecError,
    UnicodeDecodeError or RecursionError if it is no JSON object.
    """
    head = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    kind, version = (msgspec.json.decode(head.get(name, b"null")) for name in ("kind", "version"))
    return kind, version


class PartForm(Form, frozen=True, kw_only=True):
    """A file beside machine.json."""

    file: str
    bytes: int
    sha256: str


class GuestForm(Form, frozen=True, kw_only=True):
    """What it was made of. The files need not be there any more."""

    kernel: str
    kernel_sha256: str
    initrd: str | None
    command_line: str
    memory_bytes: int
    date_ns: int  # of its clock at guest time 0: nanoseconds since 1970, UTC


class DiskForm(Form, frozen=True, kw_only=True):
    """A disk as the user named it. Its content is the user's, and is not saved."""

    name: str  # a file or an NBD URI
    size_bytes: int
    read_only: bool
    format: str | None
    reconnect: bool


class ClockForm(Form, frozen=True, kw_only=True):
    """Nanoseconds, but `tsc_aux` (dwcvmm/core/saving.py)."""

    guest_ns: int
    tsc: int
    site_base: int
    site_last: int
    tsc_aux: int


class ParentForm(Form, frozen=True, kw_only=True):
    """The saved machine whose RAM this one has where its own file says nothing (dwcvmm/saved/increments.py)."""

    path: str  # of its directory, from that of this machine
    sha256: str  # of its machine.json, as that says itself


class MachineForm(Form, frozen=True, kw_only=True):
    """machine.json. `parts` and `sha256`, which is the file's own sum, are filled in when it is written."""

    kind: str = KIND
    version: int = VERSION
    dwcvmm: str = PROGRAM
    element: int  # committed since the start of the run that saved it
    strategy: str  # that it was saved under
    guest: GuestForm
    shows_tsc: bool  # in CPUID
    disks: list[DiskForm]
    rng: bool
    virtio_console: bool
    serial_ports: int  # COM1 and those after it
    cpuid: list[CpuidEntry]  # as the guest sees it
    parent: ParentForm | None = None
    parts: dict[str, PartForm] = {}
    sha256: str = ""


class VcpuForm(Form, frozen=True, kw_only=True):
    """vcpu.json. The fields of each group are those of <linux/kvm.h>."""

    regs: dict[str, Any]
    sregs: dict[str, Any]
    events: dict[str, Any]
    debugregs: dict[str, Any]
    xcrs: dict[str, int]  # by number
    msrs: dict[str, int]  # by number, in hex
    xsave: dict[str, Any]  # (xsave.py)
    halted: bool
    clock: ClockForm


class KeyboardForm(Form, frozen=True, kw_only=True):
    outputs: list[tuple[int, bool, bool]]  # value, from the mouse, timed out
    memory: bytes
    command: int
    a20: bool
    fast_reset: int  # of port 0x92


class FirmwareForm(Form, frozen=True, kw_only=True):
    """fw_cfg: the key of the selected item, the place of its next byte, half of an address."""

    key: int
    at: int
    address_high: int


class QueueForm(Form, frozen=True, kw_only=True):
    fields: dict[str, int]  # struct dwc_virtqueue
    enabled: bool
    vector: int


class VirtioForm(Form, frozen=True, kw_only=True):
    """A virtio device: its transport (virtio 1.2, 4.1), without what is in `chipset`."""

    device_type: int
    generation: int
    device_select: int
    driver_select: int
    queue_select: int
    transport_features: int
    driver_features: int  # that the device has taken
    config_vector: int
    queues: list[QueueForm]
    msix_table: bytes
    msix_pending: int
    input: bytes  # of the console: what the guest has not read


class DevicesForm(Form, frozen=True, kw_only=True):
    """devices.json. `chipset`: struct dwc_pc, the devices in C."""

    chipset: dict[str, Any]
    keyboard: KeyboardForm
    firmware: FirmwareForm | None
    virtio: list[VirtioForm]
    input: list[bytes]  # for each serial port, beyond its FIFO


class RomForm(Form, frozen=True, kw_only=True):
    """rom.json.zst, only with a BIOS: what is mapped below 4 GiB, and the items of fw_cfg by their keys."""

    rom: bytes
    items: dict[str, bytes]
