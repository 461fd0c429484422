"""Physical addresses, ports and interrupts of the PC."""

from __future__ import annotations

from dwcvmm.core.ram import LOW_END
from dwcvmm.guest.entry import APIC_BASE

LOW_RAM_END = LOW_END  # followed by PCI's configuration space, PCI's memory, and the APICs; RAM goes on at 4 GiB
# bus 0 only: Linux reads from all slots of each bus that is named here
ECAM, ECAM_BYTES, PCI_BUSES = LOW_RAM_END, 0x100000, 1
PCI_MEMORY, PCI_MEMORY_END = 0xC0000000, 0xFEC00000
PCI_CONFIG, PCI_CONFIG_PORTS = 0xCF8, 8
PCI_INTX = (16, 17, 18, 19)  # GSIs of INTA to INTD of slot 0; for slot s rotated by s
PCI_SLOTS = 32
IOAPIC, LAPIC = 0xFEC00000, APIC_BASE  # cbits/pc/pc.c serves them
APIC_ID = 0
IOAPIC_ID, IOAPIC_PINS = 1, 24

PM1_EVENT, PM1_CONTROL, PM_TIMER = 0x600, 0x604, 0x608  # as on QEMU's machines
FW_CFG = 0x510
I8042, SYSTEM_CONTROL, DEBUG_EXIT = 0x60, 0x92, 0xF4
RESET_PORT, RESET_VALUE = 0xCF9, 0x06  # a byte within PCI's address register
COM1 = 0x3F8
SERIAL = ((COM1, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))  # COM1 to COM4, and their interrupts
RTC, RTC_IRQ = 0x70, 8
TIMER_GSI, SCI = 2, 9  # of the 8254 (ISA interrupt 0); of ACPI

BDA, EBDA, EBDA_BYTES = 0x400, 0x9FC00, 0x400
BIOS, BIOS_END = 0xF0000, 0x100000  # ACPI's tables are here, the root pointer at the start
