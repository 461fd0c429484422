"""The text of a fault says all of it, both ways."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dwcvmm.core.kvmstructs import REGISTERS
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import (
    BRANCH,
    FOUND_THERE,
    SPECIAL,
    TRANSLATIONS,
    XSAVE_COMPONENTS,
    At,
    Fault,
    Point,
    Run,
    Space,
    Target,
    parse,
    parse_all,
)  # fmt: skip

TARGETS = st.one_of(
    st.builds(Target, st.just(Space.GENERAL), st.sampled_from(REGISTERS)),
    st.builds(Target, st.just(Space.SPECIAL), st.sampled_from(SPECIAL)),
    st.builds(Target, st.just(Space.MSR), st.integers(0, (1 << 32) - 1)),
    st.builds(Target, st.just(Space.XSAVE), st.sampled_from([n for part in XSAVE_COMPONENTS.values() for n in part])),
    st.builds(Target, st.just(Space.RAM), st.integers(0, (1 << 40) - 1)),
    st.just(Target(Space.BRANCH, BRANCH)),
    st.builds(Target, st.just(Space.TRANSLATION), st.sampled_from(list(TRANSLATIONS.values()))),
)

BOUNDARIES = st.sampled_from([Point(), Point(At.END)])
ANYWHERE = BOUNDARIES | st.builds(Point, st.sampled_from([At.INSTRUCTIONS, At.TIME]), st.integers(1, 10**6))
POINTS = {Run.E1: ANYWHERE, Run.E2: ANYWHERE, Run.BOTH: BOUNDARIES, Run.CHECKPOINT: st.just(Point())}


@st.composite
def faults(draw: Any) -> Fault:
    target = draw(TARGETS)
    bits = tuple(sorted(draw(st.sets(st.integers(0, target.space.bits - 1), min_size=1, max_size=6))))
    runs = [run for run in Run if run.replicas or target.space not in FOUND_THERE]
    element, run = draw(st.integers(0, 10**9)), draw(st.sampled_from(runs))
    if run is Run.CPU:
        stuck = draw(st.sampled_from([None, 0, 1]))
        return Fault(element, run, target, bits, cpu=draw(st.integers(0, 999)), stuck=stuck)
    point = draw(POINTS[run])
    assume(target.space is not Space.TRANSLATION or point.at is not At.END)
    return Fault(element, run, target, bits, point)


@given(faults())
def test_round_trip(fault: Fault) -> None:
    assert parse(str(fault)) == fault


def test_several_in_one_text() -> None:
    texts = ["7:e1:rax:1", "7+2:e2:branch:9"]
    assert parse_all(" ".join(texts)) == [parse(text) for text in texts]


def test_numbers_in_either_base() -> None:
    assert parse("7:e1:ram+4096:1") == parse("7:e1:ram+0x1000:1")
    assert parse("7:e1:msr:0xc0000082:1").target == Target(Space.MSR, 0xC0000082)
    assert parse("7:e1:rax:5,0").mask == 0x21


def test_bursts_and_stuck_bits() -> None:
    assert parse("7:e1:rax:4-7").mask == 0xF0
    assert str(parse("7+0:e1:rax:1,2,3")) == "7:e1:rax:1-3"
    assert [parse(f"7:cpu1:rax:0-3{stuck}").of(0b110) for stuck in ("", "=0", "=1")] == [0b1001, 0, 0b1111]


@pytest.mark.parametrize(
    "text",
    ["", "7", "7:e3:rax:1", "7:e1:rax", "7:e1:rax:", "7:e1:rax:64", "7:e1:ram+0x10:8", "7:e1:ram:1",
     "7:e1:xsave+4096:0", "7:e1:xsave+512:0", "7:e1:eax:1", "-7:e1:rax:1", "7:e1:rax:1,", "7:e1:msr:x:1",
     "7:e1:fs.limit:1", "7:e1:rax:1=1", "7:cpu:rax:1", "7:cpu1:rax:1=2", "7+end:cpu1:rax:1", "7+3:both:rax:1",
     "7+end:checkpoint:rax:1", "7:e1:msr:0x100000000:1", "7+9999999999us:e1:rax:1",
     "7:e1:ram+0x10000000000000000:1", "7+5ms:e1:rax:1", "7+:e1:rax:1", "7:e1:rax:7-4",
     "7:e1:branch:16", "7:checkpoint:branch:1", "7:cpu1:branch:1", "7:e1:tlb+rax:12", "7:e1:tlb+rip:52",
     "7+end:e1:tlb+rip:12", "7:checkpoint:tlb+rsp:12"],
)  # fmt: skip
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
