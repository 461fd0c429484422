"""Which sites are known: one at a place, whatever instruction of which ring the guest writes there again."""

from __future__ import annotations

import pytest

from dwcvmm.core.bare import BareCore
from dwcvmm.core.enums import MAX_SITES, PAGE, Copy, UserTrap
from dwcvmm.element.divergence import Cause, Divergence
from dwcvmm.element.sites import SEARCH_STEPS, Sites, cause_without_site
from dwcvmm.errors import KvmError

PORT_TRAP, SYSENTER = b"\xe5\xf5", b"\x0f\x34"


@pytest.mark.parametrize("user", [False, True])
def test_a_site_that_changes_its_ring(user: bool) -> None:
    core = BareCore(user_trap=UserTrap.SYSENTER)
    for ring3 in (user, not user):
        core.found(0x40, user=ring3)
        assert core.learn_site() is (ring3 is user)
        assert core.site(0) == (0x40, ring3)
        assert core.replicas[Copy.A].ram.read(0x40, 2) == (SYSENTER if ring3 else PORT_TRAP)
    assert core.site_count == 1


def test_debug_exceptions_exit_while_a_site_needs_them() -> None:
    """Both changes are told to KVM, which this engine does not have."""
    core = BareCore(user_trap=UserTrap.ICEBP)
    core.found(0x40, user=True)
    with pytest.raises(KvmError):
        core.learn_site()
    assert core.sites_that_exit_by_debug == 1
    core.found(0x40, user=True)
    assert not core.learn_site()
    assert core.sites_that_exit_by_debug == 1
    core.found(0x40, user=False)
    with pytest.raises(KvmError):
        core.learn_site()
    assert core.sites_that_exit_by_debug == 0


def test_a_full_list_takes_known_sites_only() -> None:
    core = BareCore()
    for number in range(MAX_SITES):
        core.found(8 * number, user=False)
        assert core.learn_site()
    found_by = Sites(core, 0, lambda became: None)
    core.found(8, user=False)
    assert found_by._found(core.search)
    assert not core.learn_site()
    place = PAGE - 8
    core.found(place, user=False)
    assert found_by._found(core.search) is None
    before = core.replicas[Copy.A].ram.read(place, 2)
    with pytest.raises(KvmError):
        core.learn_site()
    assert core.replicas[Copy.A].ram.read(place, 2) == before
    assert core.site_count == MAX_SITES


@pytest.mark.parametrize(
    ("detail", "cause"),
    [
        ({}, Cause.UNEXPLAINED),
        ({"tick": True}, Cause.TSC_TICK),  # a scan has found none: in ring 3 it finds none on some hosts
        ({"tick": True, "search": {"steps": SEARCH_STEPS, "timed_out": False}}, Cause.TSC_TICK),
        ({"tick": True, "search": {"steps": 9, "timed_out": True}}, Cause.TSC_TICK),
        ({"tick": True, "search": {"steps": 9, "timed_out": False}}, Cause.UNEXPLAINED),
        ({"search": {"steps": SEARCH_STEPS, "timed_out": False}}, Cause.UNEXPLAINED),
    ],
)
def test_a_tick_explains_what_was_not_searched_to_its_end(detail: dict[str, object], cause: Cause) -> None:
    assert cause_without_site(Divergence(1, ["memory"], (2, 2), {}, [0], 3, detail=detail)) is cause
