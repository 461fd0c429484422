"""A replica: a VM with one vCPU and RAM of its own, as the last element left it."""

from __future__ import annotations

from collections.abc import Callable

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.enums import DEVICE_BYTES
from dwcvmm.core.failure import check
from dwcvmm.core.fields import Number, View
from dwcvmm.core.kvmstructs import Sregs
from dwcvmm.core.ram import Ram
from dwcvmm.core.state import ALL_64_BITS, Exit, Shown, State


class Replica(View):
    """`ram`: its copy of guest RAM. Methods must be called while the replica is not running."""

    __slots__ = ("_state", "ram")
    index, cpu = Number("index"), Number("cpu")  # cpu: the CPU that its thread is bound to, or -1
    started_ns, ended_ns = Number("started_ns"), Number("ended_ns")  # of its last run, by the host's monotonic clock
    thread = Number("tid")  # of the host, which owns its vCPU; 0: none. Under sequential and in place B has none

    def __init__(self, c: CData, owner: object, ram: Ram) -> None:
        super().__init__(c, owner)
        self.ram = ram
        self._state = State.within(c.state, owner)

    @property
    def pointer(self) -> CData:
        """For calls of C."""
        return ffi.addressof(self._c)

    @property
    def ran_ns(self) -> int:
        """How long its last run took."""
        return int(self._c.ended_ns - self._c.started_ns)

    @property
    def state(self) -> State:
        """State as of its last exit; groups that cost an ioctl as of the last checkpoint, or of when they were read."""
        return self._state

    @property
    def exit(self) -> Exit:
        return Exit.within(self._c.exit, self._owner)

    def shown(self) -> Shown:
        """A copy of its exit and registers."""
        return Shown(self.exit.copy(), self.state.copy())

    def translate(self, linear: int) -> int | None:
        """Guest physical address of a linear address; None if no RAM is mapped there."""
        gpa = ffi.new("uint64_t *")
        return int(gpa[0]) if lib.dwc_translate(self.pointer, linear & ALL_64_BITS, gpa) else None

    def in_dirty_log(self, gpa: int) -> bool:
        """Whether the page was in the dirty log when that was last read."""
        for slot in self._c.slots[0 : self._c.engine.nslots]:
            if slot.gpa <= gpa < slot.gpa + slot.size:
                page = (gpa - int(slot.gpa)) // lib.DWC_PAGE
                return bool(slot.dirty[page // 64] >> page % 64 & 1)
        return False

    def registers_were_set(self) -> None:
        """Call it after registers were set by ioctl: brings the run page in step with KVM's state. Raises KvmError."""
        check("KVM_GET_REGS", lib.dwc_state_prime(self.pointer))

    def flush_tlb(self, sregs: Sregs) -> None:
        """Set these registers, which are its own, and flush its guest's translations. Raises KvmError."""
        check("KVM_SET_SREGS", lib.dwc_flush_tlb(self.pointer, sregs.pointer))

    def state_to_upset(self) -> State:
        """Fault injection: the registers that the comparison will read, to be changed. The vCPU's own stay as they
        are.
        """
        return State.within(self._c.state, self._owner, writable=True)

    def upset_device(self, offset: int, change: Callable[[int], int]) -> bool:
        """Fault injection, in an element: change a byte of its own devices. Returns False in place, where the VM has
        none.
        """
        if self._c.engine.vms == 1:
            return False
        devices = ffi.buffer(lib.dwc_inner_pc(self.pointer), DEVICE_BYTES)
        devices[offset] = bytes([change(devices[offset][0])])
        return True

    def upset_run_page(self, offset: int, mask: int) -> None:
        """Fault injection: flip bits in a byte of the page that KVM fills at exits."""
        ffi.cast("uint8_t *", self._c.run)[offset] ^= mask
