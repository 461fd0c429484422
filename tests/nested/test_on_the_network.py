"""A Linux guest on the network, under each strategy, in one testbed (network.py)."""

from __future__ import annotations

import msgspec
import pytest
from conftest import find_program
from network import AT_ONCE, FILE_BYTES, IN_TURN, LOSES_PASST, Visit
from test_kernels import STRATEGIES, Results, built, pytestmark, run_guests  # noqa: F401 # the mark is for this too

from dwcvmm.results.complaints import complaints

MAC = "52:54:00:12:34:56"


@pytest.fixture(scope="module")
def network() -> Results:
    built("net")
    find_program("passt", "passt")
    find_program("curl", "curl")
    return run_guests("network", lambda place: (".venv/bin/python", "tests/nested/network.py", place, *STRATEGIES))


@pytest.mark.xdist_group("amd-network")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_linux_is_on_the_network(network: Results, strategy: str) -> None:
    """An address by DHCP, 8 MiB in both directions, connections in turn and at once; no carrier without passt."""
    said, report = network.said(strategy), network.report(strategy)
    assert f"DWCVMM-LINK 1 {MAC} 65520" in said
    assert "DWCVMM-DHCP 10.77.0.2/24 via 10.77.0.1" in said, "as the host of this machine has it"
    visit = msgspec.json.decode((network.directory / f"{strategy}.net.json").read_bytes(), type=Visit)
    assert f"DWCVMM-FETCHED {visit.offered_sha256}" in said
    assert f"DWCVMM-FILE {visit.got_sha256}" in said
    assert (visit.in_turn, visit.at_once) == (IN_TURN, AT_ONCE)
    assert "DWCVMM-TAINTED 0" in said
    assert (report.outcome, report.strategy) == ("poweroff", strategy)
    assert strategy == "off" or complaints(report) == []
    (device,) = report.networks
    loses_passt = strategy == LOSES_PASST
    assert ("DWCVMM-NO-CARRIER" in said, device.link_up) == (loses_passt, not loses_passt)
    assert (device.backend, device.mac) == ("passt", MAC)
    assert device.received.bytes > FILE_BYTES
    assert device.sent.bytes > FILE_BYTES
    assert device.received.dropped == 0
    assert device.sent.dropped == 0 or loses_passt
