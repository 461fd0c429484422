"""Every guest prints its token under every strategy, and nothing diverges but by time instructions."""

import pytest
from conftest import ROOT, Booted

from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.hostprobe import kvm_module
from dwcvmm.machine.machine import Outcome

GUESTS = (
    *("ports", "rep", "mmio", "untouched", "ring3", "triple", "paging", "fpu"),
    *("interrupts", "rdtsc", "entries", "smc", "spin", "compute"),
)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("guest", GUESTS)
def test_token(boot, guest: str, strategy: Strategy) -> None:
    if guest == "compute" and kvm_module() == "kvm_pvm":
        pytest.skip("doctor: kernel_code: KVM emulates it, and not SSE")
    booted: Booted = boot(guest, strategy)
    outcome = booted.machine.run()
    assert booted.output == (ROOT / "guest-images" / guest / "token").read_text()
    assert outcome is (Outcome.CRASH if guest == "triple" else Outcome.POWEROFF)
    assert booted.machine.guest_status == 0
    causes = {divergence.cause for divergence in booted.divergences}
    assert causes <= ({Cause.TIME} if guest in ("rdtsc", "entries") else set())
