"""The ticks of a scaled TSC (cbits/vcpu/tsc.c)."""

from __future__ import annotations

from dwcvmm.core._binding import lib


def end_of_tick(tick: int, ratio: int, bits: int) -> int:
    """The first host TSC at which (host TSC * ratio) >> bits is more than `tick`."""
    return int(lib.dwc_tsc_end_of_tick(tick, ratio, bits))
