"""Where things are in the guest's physical address space and among its ports, and on which interrupt."""

from __future__ import annotations

IOAPIC, LAPIC = 0xFEC00000, 0xFEE00000  # cbits/platform.c serves them
APIC_ID = 0
IOAPIC_ID, IOAPIC_PINS = 1, 24

PM1_EVENT, PM1_CONTROL, PM_TIMER = 0x600, 0x604, 0x608  # as on QEMU's machines
RESET_PORT, RESET_VALUE = 0xCF9, 0x06
COM1, COM1_IRQ = 0x3F8, 4
RTC, RTC_IRQ = 0x70, 8
TIMER_GSI, SCI = 2, 9  # of the 8254 (ISA interrupt 0); of ACPI

BDA, EBDA, EBDA_BYTES = 0x400, 0x9FC00, 0x400
BIOS, BIOS_END = 0xF0000, 0x100000  # ACPI's tables lie here, the root pointer at its start
