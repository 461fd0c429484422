"""The text of a fault says all of it, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.element.divergence import REGISTERS
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import SPECIAL, XSAVE_COMPONENTS, Fault, Run, Space, Target, parse

TARGETS = st.one_of(
    st.builds(Target, st.just(Space.GENERAL), st.sampled_from(REGISTERS)),
    st.builds(Target, st.just(Space.SPECIAL), st.sampled_from(SPECIAL)),
    st.builds(Target, st.just(Space.MSR), st.integers(0, (1 << 32) - 1)),
    st.builds(Target, st.just(Space.XSAVE), st.sampled_from([n for part in XSAVE_COMPONENTS.values() for n in part])),
    st.builds(Target, st.just(Space.RAM), st.integers(0, (1 << 40) - 1)),
)


@st.composite
def faults(draw) -> Fault:
    target = draw(TARGETS)
    bits = draw(st.sets(st.integers(0, target.space.bits - 1), min_size=1, max_size=4))
    return Fault(draw(st.integers(0, 10**9)), draw(st.sampled_from(Run)), target, tuple(sorted(bits)))


@given(faults())
def test_round_trip(fault: Fault) -> None:
    assert parse(str(fault)) == fault


def test_numbers_in_either_base() -> None:
    assert parse("7:e1:ram+4096:1") == parse("7:e1:ram+0x1000:1")
    assert parse("7:e1:msr:0xc0000082:1").target == Target(Space.MSR, 0xC0000082)
    assert parse("7:e1:rax:5,0").mask == 0x21


@pytest.mark.parametrize(
    "text",
    ["", "7", "7:e3:rax:1", "7:e1:rax", "7:e1:rax:", "7:e1:rax:64", "7:e1:ram+0x10:8", "7:e1:ram:1",
     "7:e1:xsave+4096:0", "7:e1:xsave+512:0", "7:e1:eax:1", "-7:e1:rax:1", "7:e1:rax:1,", "7:e1:msr:x:1",
     "7:e1:fs.limit:1"],
)  # fmt: skip
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
