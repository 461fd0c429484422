"""Observers of a machine. The methods do nothing unless they are overridden."""

from __future__ import annotations

from dwcvmm.element.divergence import Divergence
from dwcvmm.element.observer import EngineObserver
from dwcvmm.pc.result import Result


class Observer(EngineObserver):
    """Called on the machine's thread, while the guest is not running: a slow method makes a slow guest.

    An exception in a method ends the run, which raises it.
    """

    def start(self) -> None:
        """Before the first element: the vCPUs belong to this thread now."""

    def element(self, committed: int) -> None:
        """An element was committed, and `committed` are in all. Only if this method is overridden does the machine
        return to Python after each element.
        """

    def console(self, data: bytes) -> None:
        """The guest has printed `data` to COM1 or the virtio console."""

    def serial(self, port: int, data: bytes) -> None:
        """The guest has sent `data` by another serial port: 2 is COM2."""

    def attention(self) -> None:
        """Called between two elements after request_attention(). The guest goes on when this returns."""

    def breakpoint(self) -> None:
        """Between two elements: the guest has come to a point that a debugger has set. It goes on when this returns."""

    def input_taken(self) -> None:
        """The guest may have taken some of its input."""

    def paused(self) -> None:
        """The guest stands between two elements, as somebody wished, until resumed() is called."""

    def resumed(self) -> None:
        """It goes on, or ends."""

    def end(self, result: Result) -> None:
        """The guest has ended."""


class Observers(Observer):
    """Several observers as one, called in order."""

    def __init__(self, *observers: EngineObserver) -> None:
        self._engine: list[EngineObserver] = []
        self._all: list[Observer] = []
        self.wants_elements = False
        for observer in observers:
            self.add(observer)

    def add(self, observer: EngineObserver) -> None:
        self._engine.append(observer)
        if isinstance(observer, Observer):
            self._all.append(observer)
            self.wants_elements |= type(observer).element is not Observer.element

    def divergence(self, record: Divergence) -> None:
        for observer in self._engine:
            observer.divergence(record)

    def before_rollback(self) -> None:
        for observer in self._engine:
            observer.before_rollback()

    def verdict(self, element: int, wrong: list[int] | None) -> None:
        for observer in self._engine:
            observer.verdict(element, wrong)

    def suspect_cpu(self, cpu: int) -> None:
        for observer in self._engine:
            observer.suspect_cpu(cpu)

    def repair(self, copy: str, gpa: int) -> None:
        for observer in self._engine:
            observer.repair(copy, gpa)

    def search(self, text: str) -> None:
        for observer in self._engine:
            observer.search(text)

    def explain(self, record: Divergence) -> str | None:
        """The first answer that is not None."""
        return next((text for observer in self._engine if (text := observer.explain(record))), None)

    def start(self) -> None:
        for observer in self._all:
            observer.start()

    def element(self, committed: int) -> None:
        for observer in self._all:
            observer.element(committed)

    def console(self, data: bytes) -> None:
        for observer in self._all:
            observer.console(data)

    def serial(self, port: int, data: bytes) -> None:
        for observer in self._all:
            observer.serial(port, data)

    def attention(self) -> None:
        for observer in self._all:
            observer.attention()

    def breakpoint(self) -> None:
        for observer in self._all:
            observer.breakpoint()

    def input_taken(self) -> None:
        for observer in self._all:
            observer.input_taken()

    def paused(self) -> None:
        for observer in self._all:
            observer.paused()

    def resumed(self) -> None:
        for observer in self._all:
            observer.resumed()

    def end(self, result: Result) -> None:
        for observer in self._all:
            observer.end(result)
