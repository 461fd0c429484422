"""A config that cannot be is refused as a whole: the engine is not made (cbits/setup.c)."""

from __future__ import annotations

from dataclasses import replace
from errno import EINVAL
from typing import Any

import pytest

from dwcvmm.core.bare import bare_config
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import LOG_ELEMENTS, PAGE, CacheFlush, Strategy
from dwcvmm.errors import KvmError

OFF, SEQUENTIAL, PARALLEL, IN_PLACE, REPLAY = Strategy


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        *((strategy, {}) for strategy in Strategy),
        (SEQUENTIAL, {"checkpoint_every": LOG_ELEMENTS, "counting": True, "scrub_bytes_per_s": PAGE}),
        (IN_PLACE, {"cache_flush": CacheFlush.DIRTY}),
    ],
)
def test_accepted(strategy: Strategy, changes: dict[str, Any]) -> None:
    config = bare_config(strategy, **changes)
    core = Core(config)
    assert (core.strategy, core.ram_bytes, core.checkpoint_every) == (strategy, PAGE, config.checkpoint_every)
    assert [replica.index for replica in core.replicas] == list(range(len(config.replicas)))
    assert core.vector is None


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        pytest.param(OFF, {"replicas": ()}, id="no VM"),
        pytest.param(PARALLEL, {"replicas": bare_config(OFF).replicas}, id="one VM of two"),
        pytest.param(OFF, {"replicas": (replace(bare_config().replicas[0], vcpu_fd=-1),)}, id="no vCPU"),
        pytest.param(OFF, {"replicas": (replace(bare_config().replicas[0], ram=0),)}, id="no RAM"),
        pytest.param(OFF, {"ram_bytes": 0}, id="no size of RAM"),
        pytest.param(OFF, {"ram_bytes": PAGE + 1}, id="a part of a page"),
        pytest.param(OFF, {"checkpoint_ram": PAGE}, id="off with a checkpoint"),
        pytest.param(SEQUENTIAL, {"checkpoint_ram": 0}, id="no checkpoint"),
        pytest.param(SEQUENTIAL, {"checkpoint_every": 0}, id="never a checkpoint"),
        pytest.param(SEQUENTIAL, {"checkpoint_every": LOG_ELEMENTS + 1}, id="more elements than the log has room for"),
        pytest.param(IN_PLACE, {"checkpoint_every": 2}, id="in place not each element is a checkpoint"),
        pytest.param(IN_PLACE, {"counting": True}, id="in place with slices"),
        pytest.param(IN_PLACE, {"scrub_bytes_per_s": PAGE}, id="in place with a scrubber"),
        pytest.param(SEQUENTIAL, {"cache_flush": CacheFlush.DIRTY}, id="caches flushed with two VMs"),
        pytest.param(IN_PLACE, {"cache_flush": CacheFlush.ALL}, id="nothing to evict caches with"),
        pytest.param(OFF, {"clock_divisor": 0}, id="a clock that does not move"),
        pytest.param(OFF, {"slice_ns": 0}, id="slices without length"),
        pytest.param(SEQUENTIAL, {"idle_limit": 0}, id="pages cold at once"),
        pytest.param(SEQUENTIAL, {"idle_limit": 2}, id="pages cold sooner than at first"),
        pytest.param(SEQUENTIAL, {"idle_most": 255}, id="pages hot for longer than is counted"),
        pytest.param(OFF, {"tsc_bits": 64}, id="a fraction longer than its number"),
    ],
)
def test_refused(strategy: Strategy, changes: dict[str, Any]) -> None:
    with pytest.raises(KvmError) as refused:
        Core(bare_config(strategy, **changes))
    assert refused.value.errno == EINVAL
