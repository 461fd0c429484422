"""The ACPI tables of the PC (ACPI 6.4, chapter 5), and what a BIOS leaves in its data area.

Without a BIOS all tables are in the BIOS area: old kernels look for the root pointer there, and no kernel allocates
memory there. The FADT is that of ACPI 3.0, with 244 bytes. There is no system management mode: the machine is in ACPI
mode from the start, and SMI_CMD is 0.
"""

from __future__ import annotations

import struct

from dwcvmm.errors import InternalError
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.pc import aml, layout

RSDP = layout.BIOS
TABLES = RSDP + 0x40
OEM_ID, OEM_TABLE_ID, OEM_REVISION, CREATOR = b"DWCVMM", b"DWCVMM  ", 1, b"DWCV"
HEADER = struct.Struct("<4sIBB6s8sI4sI")
# FADT flags (5.2.9): WBINVD works, C1 works, no fixed sleep button, 32-bit PM timer, reset register. PWR_BUTTON (bit 4)
# is clear: the power button is a fixed one (4.8.2.2.1.1). All kernels know it by PM1's registers alone; one that is a
# device of the namespace (PNP0C0C) would need a register block for its event and methods for the kernel to interpret
WBINVD, PROC_C1, NO_SLEEP_BUTTON = 1 << 0, 1 << 2, 1 << 5
TIMER_32, RESET_SUPPORTED = 1 << 8, 1 << 10
LEGACY_DEVICES, NO_VGA = 1 << 0, 1 << 2  # IAPC_BOOT_ARCH; the 8042 is not named: no keyboard is plugged in
SYSTEM_IO, DWORD_ACCESS = 1, 3
PCAT_COMPATIBLE = 1  # MADT: there are 8259s
ACTIVE_HIGH_LEVEL, CONFORMS = 0xD, 0  # interrupt flags (5.2.12.5)
NMI_LINT, ALL_PROCESSORS = 1, 0xFF


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all zero."""
    return -sum(data) & 0xFF


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A system description table (5.2.6): its header before `body`."""
    header = HEADER.pack(
        signature, HEADER.size + len(body), revision, 0, OEM_ID, OEM_TABLE_ID, OEM_REVISION, CREATOR, OEM_REVISION
    )
    content = bytearray(header + body)
    content[9] = checksum(content)
    return bytes(content)


def _pci_routes() -> bytes:
    """Each pin of a slot is a GSI, directly (6.2.13); from slot to slot the order is rotated by one."""
    routes = (
        aml.package(*map(aml.integer, (slot << 16 | 0xFFFF, pin, 0, layout.PCI_INTX[(slot + pin) % 4])))
        for slot in range(layout.PCI_SLOTS)
        for pin in range(4)
    )
    return aml.name("_PRT", aml.package(*routes))


def _pci() -> bytes:
    """The root bridge. It is PCI Express, so that the configuration space can be in memory."""
    last_bus, config_end = layout.PCI_BUSES - 1, layout.PCI_CONFIG + layout.PCI_CONFIG_PORTS
    return aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_BBN", aml.integer(0)),
        aml.resources(
            aml.bus_numbers(0, last_bus),
            aml.io_ports(layout.PCI_CONFIG, layout.PCI_CONFIG_PORTS),
            aml.port_window(0, layout.PCI_CONFIG - 1),
            aml.port_window(config_end, 0xFFFF),
            aml.memory_window(layout.PCI_MEMORY, layout.PCI_MEMORY_END - 1),
        ),
        _pci_routes(),
    )


def mcfg() -> bytes:
    """Where PCI's configuration space is in memory (PCI Firmware 3.2, 4.1.2)."""
    return table(b"MCFG", 1, struct.pack("<8xQHBB4x", layout.ECAM, 0, 0, layout.PCI_BUSES - 1))


def _serial(number: int) -> bytes:
    port, irq = layout.SERIAL[number - 1]
    return aml.device(
        f"COM{number}",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(number)),
        aml.resources(aml.io_ports(port, 8), aml.irq(irq)),
    )


def dsdt(serial_ports: int) -> bytes:
    """Sleep state S5 (off), PCI, the mainboard's own resources, the serial ports and the clock."""
    board = aml.device(
        "MBRD",
        aml.name("_HID", aml.eisa_id("PNP0C02")),
        aml.resources(aml.fixed_memory(layout.ECAM, layout.ECAM_BYTES)),
    )
    serial = b"".join(map(_serial, range(1, serial_ports + 1)))
    clock = aml.device(
        "RTC_",
        aml.name("_HID", aml.eisa_id("PNP0B00")),
        aml.resources(aml.io_ports(layout.RTC, 2), aml.irq(layout.RTC_IRQ)),
    )
    off = aml.name("_S5_", aml.package(*map(aml.integer, (5, 0, 0, 0))))
    return table(b"DSDT", 2, off + aml.scope("_SB_", _pci(), board, serial, clock))


def _io_block(port: int, bits: int, access: int = 0) -> bytes:
    """A generic address structure (5.2.3.2)."""
    return struct.pack("<BBBBQ", SYSTEM_IO, bits, 0, access, port)


def fadt(facs_at: int, dsdt_at: int) -> bytes:
    body = bytearray(244 - HEADER.size)

    def put(offset: int, form: str, *values: int) -> None:
        struct.pack_into("<" + form, body, offset - HEADER.size, *values)

    def put_block(offset: int, block: bytes) -> None:
        body[offset - HEADER.size : offset - HEADER.size + len(block)] = block

    put(36, "II", facs_at, dsdt_at)
    put(46, "H", layout.SCI)
    put(56, "I", layout.PM1_EVENT)
    put(64, "I", layout.PM1_CONTROL)
    put(76, "I", layout.PM_TIMER)
    put(88, "BB", 4, 2)
    put(91, "B", 4)
    put(96, "HH", 0xFFFF, 0xFFFF)  # no C2, no C3
    put(108, "B", 0x32)  # the century in CMOS memory
    put(109, "H", LEGACY_DEVICES | NO_VGA)
    put(112, "I", WBINVD | PROC_C1 | NO_SLEEP_BUTTON | TIMER_32 | RESET_SUPPORTED)
    put_block(116, _io_block(layout.RESET_PORT, 8))
    put(128, "B", layout.RESET_VALUE)
    put(132, "QQ", facs_at, dsdt_at)
    put_block(148, _io_block(layout.PM1_EVENT, 32))
    put_block(172, _io_block(layout.PM1_CONTROL, 16))
    put_block(208, _io_block(layout.PM_TIMER, 32, DWORD_ACCESS))
    return table(b"FACP", 4, bytes(body))


def facs() -> bytes:
    """64 bytes, aligned to as many, without a checksum (5.2.10)."""
    return struct.pack("<4sIIIIIQB31x", b"FACS", 64, 0, 0, 0, 0, 0, 2)


def madt() -> bytes:
    """One CPU, one IO-APIC, and the ISA interrupts that do not arrive at the pin of their number (5.2.12)."""
    body = struct.pack("<II", layout.LAPIC, PCAT_COMPATIBLE)
    body += struct.pack("<BBBBI", 0, 8, 0, layout.APIC_ID, 1)
    body += struct.pack("<BBBBII", 1, 12, layout.IOAPIC_ID, 0, layout.IOAPIC, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, 0, layout.TIMER_GSI, CONFORMS)
    body += struct.pack("<BBBBIH", 2, 10, 0, layout.SCI, layout.SCI, ACTIVE_HIGH_LEVEL)
    body += struct.pack("<BBBHB", 4, 6, ALL_PROCESSORS, CONFORMS, NMI_LINT)
    return table(b"APIC", 3, body)


def rsdp(rsdt_at: int, xsdt_at: int) -> bytes:
    """The root pointer (5.2.5.3): one checksum over the part that ACPI 1.0 defines, and one over all."""
    old = bytearray(struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM_ID, 2, rsdt_at))
    old[8] = checksum(old)
    new = bytearray(old + struct.pack("<IQB3x", 36, xsdt_at, 0))
    new[32] = checksum(new)
    return bytes(new)


def place_tables(memory: GuestMemory, start: int, room_bytes: int, serial_ports: int) -> bytes:
    """Write all tables from a guest physical address on, 64-byte aligned; returns the root pointer to them."""
    at = start

    def place(content: bytes) -> int:
        nonlocal at
        where, at = at, at + -(-len(content) // 64) * 64
        memory.write(where, content)
        return where

    tables = [place(fadt(place(facs()), place(dsdt(serial_ports)))), place(madt()), place(mcfg())]
    rsdt = place(table(b"RSDT", 1, struct.pack(f"<{len(tables)}I", *tables)))
    xsdt = place(table(b"XSDT", 1, struct.pack(f"<{len(tables)}Q", *tables)))
    if at > start + room_bytes:
        raise InternalError(f"the ACPI tables do not fit into {room_bytes} bytes")
    return rsdp(rsdt, xsdt)


def place_firmware(memory: GuestMemory, serial_ports: int = 1) -> bytes:
    """Write the tables and the BIOS data area; returns the root pointer."""
    pointer = place_tables(memory, TABLES, layout.BIOS_END - TABLES, serial_ports)
    memory.write(RSDP, pointer)
    equipment = serial_ports << 9  # bits 11 to 9
    ports = (port for port, _ in layout.SERIAL[:serial_ports])
    memory.write(layout.BDA, struct.pack(f"<{serial_ports}H", *ports))
    memory.write(layout.BDA + 0x0E, struct.pack("<HHBH", layout.EBDA >> 4, equipment, 0, layout.EBDA >> 10))
    memory.write(layout.EBDA, struct.pack("<B", layout.EBDA_BYTES >> 10))
    return pointer
