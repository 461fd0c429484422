"""Where a replay can stand: at the start of an element, or within one, where moves from its start lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from dwcvmm.core.debugging import Point


class Kind(Enum):
    EXIT = auto()  # to the inner exit of this number, counted from the element's start
    RUN = auto()  # to so many points, by debug registers
    STEPS = auto()  # so many instructions
    PASS = auto()  # an interrupt, or an instruction that cannot be stepped, to one of `targets`


TEXTS = {Kind.EXIT: "inner exit ", Kind.RUN: "points +", Kind.STEPS: "instructions +", Kind.PASS: "interrupts +"}


@dataclass(frozen=True)
class Move:
    kind: Kind
    number: int = 1
    points: tuple[Point, ...] = ()
    targets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Place:
    """`element`: from 1; behind the last one of the recording it has no moves."""

    element: int
    moves: tuple[Move, ...] = ()

    def __str__(self) -> str:
        way = [f"inner exit {self.exits}"] if self.exits else ["start"]
        way += [f"{TEXTS[move.kind]}{move.number}" for move in self.moves[bool(self.exits) :]]
        return f"element {self.element}: {', '.join(way)}"

    def then(self, move: Move) -> Place:
        """With one more move; two of one kind are one."""
        if not self.moves or move.kind not in (Kind.RUN, Kind.STEPS):
            return replace(self, moves=(*self.moves, move))
        last = self.moves[-1]
        if (last.kind, last.points) != (move.kind, move.points):
            return replace(self, moves=(*self.moves, move))
        return replace(self, moves=(*self.moves[:-1], replace(last, number=last.number + move.number)))

    @property
    def before_last(self) -> Place:
        """Without the last move."""
        return replace(self, moves=self.moves[:-1])

    @property
    def last(self) -> Move:
        return self.moves[-1]

    def shorter(self, number: int) -> Place:
        """With a last move of this length; 0: without it."""
        return replace(self, moves=(*self.moves[:-1], replace(self.last, number=number)) if number else self.moves[:-1])

    def first(self, number: int) -> Place:
        """With so many of its moves."""
        return replace(self, moves=self.moves[:number])

    @property
    def steps(self) -> int:
        """Instructions, if there are no other moves."""
        return sum(move.number for move in self.moves)

    @property
    def exits(self) -> int:
        """The inner exit from which its moves start; 0: they start from the element's start."""
        return self.moves[0].number if self.moves and self.moves[0].kind is Kind.EXIT else 0


def anchor_at(element: int, exits: int) -> Place:
    """The inner exit of this number, or the element's start."""
    return Place(element, (Move(Kind.EXIT, exits),) if exits else ())
