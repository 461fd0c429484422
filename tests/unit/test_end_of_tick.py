"""The guest is left before the host's TSC at which a tick ends: one too many, and it reads another time."""

from __future__ import annotations

import pytest

from dwcvmm.core.tsc import end_of_tick

DAY_MS = 86_400_000


@pytest.mark.parametrize("bits", [48, 32])  # VMX, SVM
@pytest.mark.parametrize("host_khz", [1_000_000, 2_600_000, 2_112_003, 3_999_999, 999_983])
def test_a_tick_ends_where_the_next_value_begins(host_khz: int, bits: int) -> None:
    ratio = (1 << bits) // host_khz  # as KVM computes it for 1 kHz
    for tick in (0, 1, 2, 999, DAY_MS - 1, DAY_MS, 365 * DAY_MS):
        end = end_of_tick(tick, ratio, bits)
        assert (end * ratio) >> bits == tick + 1
        assert ((end - 1) * ratio) >> bits == tick
