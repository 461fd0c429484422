"""The size of the last-level cache, from a tree like sysfs'."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.element.caches import last_level_cache_bytes
from dwcvmm.errors import HostError

KIB = 1 << 10
CACHE = st.tuples(st.sampled_from(["Data", "Unified"]), st.integers(1, 1 << 20))
INSTRUCTIONS = ("Instruction", 1 << 30)


def make_tree(root: Path, caches: list[tuple[int, str, str]]) -> None:
    for i, (level, kind, size) in enumerate(caches):
        index = root / f"index{i}"
        index.mkdir()
        for name, value in (("level", str(level)), ("type", kind), ("size", size)):
            (index / name).write_text(f"{value}\n")


@given(st.dictionaries(st.integers(1, 4), CACHE, min_size=1), st.randoms())
def test_the_highest_level_counts(levels: dict[int, tuple[str, int]], random: Any) -> None:
    caches = [(level, kind, f"{kib}K") for level, (kind, kib) in levels.items()]
    caches.append((5, INSTRUCTIONS[0], f"{INSTRUCTIONS[1]}K"))
    random.shuffle(caches)
    with TemporaryDirectory() as root:
        make_tree(Path(root), caches)
        assert last_level_cache_bytes(Path(root)) == levels[max(levels)][1] * KIB


def test_units(tmp_path: Path) -> None:
    make_tree(tmp_path, [(3, "Unified", "32M")])
    assert last_level_cache_bytes(tmp_path) == 32 << 20


@pytest.mark.parametrize("caches", [[], [(1, "Instruction", "32K")], [(2, "Unified", "lots")]])
def test_a_kernel_that_does_not_say(tmp_path: Path, caches: list[tuple[int, str, str]]) -> None:
    make_tree(tmp_path, caches)
    with pytest.raises(HostError, match="--flush dirty or none"):
        last_level_cache_bytes(tmp_path)
