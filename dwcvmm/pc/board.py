"""What Python has of the PC's board: the buses, the devices on them, and what an exit that no device in C answers comes
to. A new device is added to the buses in `Board`.
"""

from __future__ import annotations

from collections.abc import Callable

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import KvmExit, PowerEnd
from dwcvmm.core.state import Exit
from dwcvmm.pc import layout
from dwcvmm.pc.bus import PHYSICAL, PORTS, Bus, CoreDevices
from dwcvmm.pc.devices import fwcfg
from dwcvmm.pc.devices.debugexit import DebugExit
from dwcvmm.pc.devices.keyboard import KeyboardController, SystemControl
from dwcvmm.pc.result import Outcome
from dwcvmm.pc.virtiodevices import VirtioDevices

POWER_OUTCOMES = {PowerEnd.OFF: Outcome.POWEROFF, PowerEnd.RESET: Outcome.REBOOT}


class Board:
    """`fw_cfg`, and the content of `rom`, are those that a BIOS needs. `end`: ends the guest. `exit_code`: what the
    guest has written to the debug exit.
    """

    def __init__(
        self,
        core: Core,
        virtio: VirtioDevices,
        fw_cfg: fwcfg.FirmwareConfig | None,
        rom: bytes,
        end: Callable[[Outcome], None],
    ) -> None:
        self._core, self._end = core, end
        self.virtio, self.fw_cfg, self.rom = virtio, fw_cfg, rom
        self.exit_code: int | None = None
        self.ports = Bus(PORTS, CoreDevices(core.chipset, False, self._now_ns, virtio))
        self.mmio = Bus(PHYSICAL, CoreDevices(core.chipset, True, self._now_ns, virtio))
        if fw_cfg:
            self.ports.add(layout.FW_CFG, fwcfg.PORTS, fw_cfg)
        self.keyboard = KeyboardController(self._reboot, core.chipset.set_irq_line)
        self.ports.add(layout.I8042, 1, self.keyboard)
        self.ports.add(layout.I8042 + 4, 1, _Shifted(self.keyboard, 4))
        self.system_control = SystemControl(self.keyboard, self._reboot)
        self.ports.add(layout.SYSTEM_CONTROL, 1, self.system_control)
        self.ports.add(layout.DEBUG_EXIT, 1, DebugExit(self._debug_exit))

    def _now_ns(self) -> int:
        return self._core.guest_ns

    def _reboot(self) -> None:
        self._end(Outcome.REBOOT)

    def _debug_exit(self, value: int) -> None:
        self.exit_code = value
        self._end(Outcome.POWEROFF)

    @property
    def waits(self) -> bool:
        """Whether a device waits to use guest memory."""
        return self.virtio.waiting or bool(self.fw_cfg and self.fw_cfg.waiting)

    def process(self) -> None:
        """Let devices use guest memory: all copies of it agree."""
        self.virtio.process()
        if self.fw_cfg:
            self.fw_cfg.process()

    def serve(self, exit_: Exit, answer: Callable[[bytes], None]) -> None:
        """Carry out a committed exit. `answer` gets what a read returns to the guest."""
        if exit_.reason == KvmExit.IO:
            _access(self.ports, exit_.port, exit_, answer)
        elif exit_.reason == KvmExit.MMIO:
            _access(self.mmio, exit_.gpa, exit_, answer)
        elif exit_.reason == KvmExit.HLT:
            self._end(Outcome.HALT)
        else:
            self._end(Outcome.CRASH)
        if self._core.chipset.power_end is not PowerEnd.ON:
            self._end(POWER_OUTCOMES[self._core.chipset.power_end])


def _access(bus: Bus, address: int, exit_: Exit, answer: Callable[[bytes], None]) -> None:
    size, data = exit_.size, exit_.data
    if exit_.is_write:
        for at in range(0, len(data), size):
            bus.write(address, size, int.from_bytes(data[at : at + size], "little"))
    else:
        answer(b"".join(bus.read(address, size).to_bytes(size, "little") for _ in range(exit_.count)))


class _Shifted:
    """One register of a device whose registers are not adjacent on the bus."""

    def __init__(self, device: KeyboardController, offset: int) -> None:
        self._device, self._offset = device, offset

    def read(self, offset: int, size: int) -> int:
        return self._device.read(self._offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._device.write(self._offset, size, value)
