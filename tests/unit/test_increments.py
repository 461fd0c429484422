"""Increments of saved machines: what they have, what a row of them reads as, parents that are not what they were."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_saved_files import machine, write

from dwcvmm.errors import ConfigError
from dwcvmm.saved import folder, pages
from dwcvmm.saved.folder import DamagedError, SavedReader
from dwcvmm.saved.increments import Parent, by_page, saved_ram
from dwcvmm.saved.writer import SavedWriter

PAGE = pages.PAGE
Ram = dict[int, int]  # pages by number, each full of one value
RAM = st.dictionaries(st.integers(0, 600), st.integers(0, 3), max_size=30)
LONG = dict.fromkeys(range(600), 1)


def page(value: int) -> bytes:
    return bytes([value]) * PAGE


def stretches(content: Ram) -> list[tuple[int, bytes]]:
    def read(gpa: int, length: int) -> bytes:
        return b"".join(page(content[at // PAGE]) for at in range(gpa, gpa + length, PAGE))

    return list(pages.stretches((number * PAGE for number in sorted(content)), read))


def save(path: Path, content: Ram, parent: Path | None = None, number: int = 1) -> int:
    """How many pages were written."""
    form, ram = machine(number), stretches(content)
    with ExitStack() as opened:
        if parent:
            base = opened.enter_context(closing(Parent(parent, path)))
            form, ram = base.child(form), list(base.changed(ram))
        writer = opened.enter_context(closing(SavedWriter(path)))
        writer.begin()
        writer.part("ram", pages.compressed(pages.encode(ram)))
        writer.finish(form)
    return len(list(by_page(ram)))


def ram_of(path: Path) -> Ram:
    with closing(SavedReader(path)) as reader:
        parts = list(saved_ram(reader))
    assert all(len(data) <= pages.MOST_PAGES * PAGE for _, data in parts)
    found = [(gpa // PAGE, data[0]) for gpa, data in by_page(parts)]
    assert [number for number, _ in found] == sorted({number for number, _ in found})
    return {number: value for number, value in found if value}


def without_zeros(content: Ram) -> Ram:
    return {number: value for number, value in content.items() if value}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(RAM | st.just(LONG), min_size=2, max_size=4))
def test_a_row_of_increments_has_the_last_ram(tmp_path: Path, contents: list[Ram]) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    before: Ram = {}
    for number, content in enumerate(contents):
        written = save(tmp_path / str(number), content, tmp_path / str(number - 1) if number else None)
        kept = without_zeros(content)
        assert written == sum(before.get(each, 0) != kept.get(each, 0) for each in before.keys() | kept.keys())
        assert ram_of(tmp_path / str(number)) == kept
        before = kept


def test_a_row_can_be_moved_together(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    save(tmp_path / "here/old", {1: 1, 2: 2})
    save(tmp_path / "here/new", {1: 1, 2: 3}, tmp_path / "here/old")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert ram_of(tmp_path / "there/new") == {1: 1, 2: 3}


def removed(old: Path) -> None:
    shutil.rmtree(old)


def replaced(old: Path) -> None:
    save(old, {1: 1}, number=2)


def damaged(old: Path) -> None:
    (old / "ram.1.zst").write_bytes(random.Random(1).randbytes((old / "ram.1.zst").stat().st_size))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (removed, ConfigError, "the parent of .*new cannot be read: .*old"),
        (replaced, ConfigError, "the parent of .*new is another one: a machine was saved in .*old since"),
        (damaged, DamagedError, "^ram.1.zst in .*old is damaged"),
    ],
)
def test_a_parent_that_is_not_what_it_was(
    tmp_path: Path, change: Callable[[Path], None], error: type[Exception], says: str
) -> None:
    save(tmp_path / "old", {1: 1})
    save(tmp_path / "new", {1: 2}, tmp_path / "old")
    change(tmp_path / "old")
    with pytest.raises(error, match=says) as caught:
        SavedReader(tmp_path / "new")
    assert type(caught.value) is error


def test_what_is_needed_is_not_overwritten(tmp_path: Path) -> None:
    save(tmp_path / "old", {1: 1})
    save(tmp_path / "new", {1: 2}, tmp_path / "old")
    for parent in ("old", "new"):
        with pytest.raises(ConfigError, match="needs a directory of its own"):
            Parent(tmp_path / parent, tmp_path / "old")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    with pytest.raises(ConfigError, match="needs a directory of its own"):
        Parent(tmp_path / "old", tmp_path / "link")
    with closing(Parent(tmp_path / "old", tmp_path / "third")), pytest.raises(folder.SaveError, match="in use"):
        write(tmp_path / "old", 2)


def test_another_size_of_ram(tmp_path: Path) -> None:
    save(tmp_path / "old", {1: 1})
    with closing(Parent(tmp_path / "old", tmp_path / "new")) as parent:
        parent.check_size(16 << 20)
        with pytest.raises(ConfigError, match="16777216 bytes of RAM, not 1048576"):
            parent.check_size(1 << 20)


def test_a_row_has_an_end(tmp_path: Path) -> None:
    save(tmp_path / "0", {1: 1})
    for number in range(1, folder.MOST_PARENTS + 1):
        save(tmp_path / str(number), {1: number}, tmp_path / str(number - 1))
    assert ram_of(tmp_path / str(folder.MOST_PARENTS)) == {1: folder.MOST_PARENTS}
    with pytest.raises(ConfigError, match="can be no parent itself"):
        Parent(tmp_path / str(folder.MOST_PARENTS), tmp_path / "more")
