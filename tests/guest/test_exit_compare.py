"""An exit is compared by what the guest said, not by what else lies in the run page."""

import pytest
from conftest import ROOT, StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.pc.result import Outcome

MMIO_DATA, MMIO_DATA_BYTES = 32 + 8, 8  # of struct kvm_run in <linux/kvm.h>: the union, behind phys_addr


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_bytes_behind_a_memory_mapped_write_do_not_count(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("mmio", strategy)  # its first exit is a write of four bytes
    booted.machine.core.replicas[1].upset_run_page(MMIO_DATA + MMIO_DATA_BYTES - 1, 0xFF)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "mmio" / "token").read_text()
    assert booted.divergences == []
