"""Increments: a saved machine that has only the pages which differ from its parent's, another saved machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from dwcvmm.errors import ConfigError
from dwcvmm.saved.folder import MOST_PARENTS, SavedReader
from dwcvmm.saved.form import MachineForm, ParentForm
from dwcvmm.saved.pages import MOST_PAGES, PAGE, ZEROS, decode, unpacked

Stretch = tuple[int, bytes]


class Parent:
    """A saved machine to which increments are saved in `directory`. It is in use, and so stays as it is, until it is
    closed.

    Raises DamagedError, or ConfigError if there is no saved machine or no increment to it can be in that directory.
    """

    def __init__(self, path: Path, directory: Path) -> None:
        self._reader = SavedReader(path)
        generations = list(self._reader.generations())
        try:
            if any(os.path.realpath(each.path) == os.path.realpath(directory) for each in generations):
                raise ConfigError(f"an increment to {path} needs a directory of its own: {directory} has what it needs")
            if len(generations) > MOST_PARENTS:
                raise ConfigError(f"{path} has {MOST_PARENTS} parents in a row, and can be no parent itself")
        except BaseException:
            self.close()
            raise
        self._form = ParentForm(
            path=os.path.relpath(os.path.realpath(path), os.path.realpath(directory)),
            sha256=self._reader.machine.sha256,
        )

    def check_size(self, memory_bytes: int) -> None:
        """Raises ConfigError unless it is a machine with so much RAM."""
        if (its := self._reader.machine.guest.memory_bytes) != memory_bytes:
            raise ConfigError(
                f"{self._reader.path} cannot be its parent: it has {its} bytes of RAM, not {memory_bytes}"
            )

    def child(self, machine: MachineForm) -> MachineForm:
        """Of an increment: machine.json, which names its parent."""
        return msgspec.structs.replace(machine, parent=self._form)

    def changed(self, ram: Iterable[Stretch]) -> Iterator[Stretch]:
        """Of the stretches of a machine's RAM what the parent has not, and zeros where only the parent has something.
        An empty one stands for one that is as the parent's, so that who takes them is not left without any for long.
        Raises DamagedError.
        """
        below = _Ahead(by_page(saved_ram(self._reader)))
        for gpa, data in ram:
            yield from joined(_changed(below.until(gpa + len(data)), by_page([(gpa, data)])))
            yield gpa, b""
        yield from joined(_changed(below.until(None), iter(())))

    def close(self) -> None:
        self._reader.close()


class _Ahead:
    """Pages that ascend, and are taken up to an address."""

    def __init__(self, pages: Iterator[Stretch]) -> None:
        self._pages, self._next = pages, next(pages, None)

    def until(self, end: int | None) -> Iterator[Stretch]:
        """None: to the last one."""
        while (page := self._next) and (end is None or page[0] < end):
            self._next = next(self._pages, None)
            yield page


def saved_ram(reader: SavedReader) -> Iterator[Stretch]:
    """All RAM of a saved machine, its own and its parents': stretches of whole pages, which ascend; some can be zero.
    Raises DamagedError.
    """
    own = _own_ram(reader)
    if not reader.parent:
        return own
    return joined(_over(by_page(saved_ram(reader.parent)), by_page(own)))


def _own_ram(reader: SavedReader) -> Iterator[Stretch]:
    file = reader.file("ram")
    file.seek(0)
    try:
        yield from decode(unpacked(file))
    except ValueError as error:
        raise reader.wrong("ram", error) from error


def by_page(parts: Iterable[Stretch]) -> Iterator[Stretch]:
    for gpa, data in parts:
        for at in range(0, len(data), PAGE):
            yield gpa + at, data[at : at + PAGE]


def joined(pages: Iterable[Stretch]) -> Iterator[Stretch]:
    """Pages that ascend -> stretches."""
    run: list[bytes] = []
    first = 0
    for gpa, page in pages:
        if run and (gpa != first + len(run) * PAGE or len(run) == MOST_PAGES):
            yield first, b"".join(run)
            run = []
        if not run:
            first = gpa
        run.append(page)
    if run:
        yield first, b"".join(run)


def _paired(below: Iterator[Stretch], above: Iterator[Stretch]) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Each page of two machines, and what they have there."""
    old, new = next(below, None), next(above, None)
    while old or new:
        gpa = min(each[0] for each in (old, new) if each)
        was = old[1] if old and old[0] == gpa else None
        now = new[1] if new and new[0] == gpa else None
        yield gpa, was, now
        old = next(below, None) if was is not None else old
        new = next(above, None) if now is not None else new


def _over(below: Iterator[Stretch], above: Iterator[Stretch]) -> Iterator[Stretch]:
    for gpa, was, now in _paired(below, above):
        page = was if now is None else now
        assert page is not None
        yield gpa, page


def _changed(below: Iterator[Stretch], above: Iterator[Stretch]) -> Iterator[Stretch]:
    for gpa, was, now in _paired(below, above):
        page = ZEROS if now is None else now
        if page != (ZEROS if was is None else was):
            yield gpa, page
