"""Runs a guest with its console: the machine on a thread of its own, terminal and signals on the main thread."""

from __future__ import annotations

import code
import os
import selectors
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol, Self

from dwcvmm.console.input import Input
from dwcvmm.console.keys import HELP, Key, KeyParser
from dwcvmm.console.portinput import INPUT_AHEAD, PortInput
from dwcvmm.console.remote import Remote
from dwcvmm.console.terminal import Terminal
from dwcvmm.console.watchdog import BUSY_MOST_S, LOOK_S, Busy, Watchdog
from dwcvmm.errors import ExitCode, MachineStateError
from dwcvmm.machine import Machine
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.result import Outcome, Result
from dwcvmm.results.status import Status
from dwcvmm.results.statustext import describe
from dwcvmm.streams import say

# all catchable signals that end a process, except those of its own faults: the terminal must not stay raw
STOP_SIGNALS = tuple(
    getattr(signal, f"SIG{name}")
    for name in ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR", "STKFLT"]
    if hasattr(signal, f"SIG{name}")
)
READERS_S = 0.2  # that readers have to take what was printed
STOP_S = 0.4  # that the machine has to stop; if it waits for something longer, it is left behind
FINISH_S = 0.6  # and then for writing the report


class Ending:
    """Whether the run is to end, by a signal or the time limit. Calling it tells whether to stop waiting for readers of
    the output. It is set in signal handlers, which must not take locks.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def request(self) -> None:
        self._since = self._since or time.monotonic()

    @property
    def requested(self) -> bool:
        return self._since is not None

    def __call__(self) -> bool:
        return self._since is not None and time.monotonic() > self._since + READERS_S


class Saves(Protocol):
    """Saves or dumps the machine, on its thread and between two elements."""

    def begin(self) -> Future[int]:
        """The machine may go on meanwhile. Done when all is written: how many bytes that are."""

    def told(self, written: int) -> str:
        """What was written, in words."""


class Session(Observer):
    """Runs `machine` to its end, a signal, or `deadline` (time.monotonic()). `source`: its input. `ports`: that of more
    serial ports. `always_waits`: the guest's idle time passes in real time even when the input has ended. `saver`,
    `dumper`: for Ctrl-a w and Ctrl-a d.

    A context manager that handles signals: one that comes while results are written ends the wait for their readers.
    """

    def __init__(
        self,
        machine: Machine,
        source: Input | Remote,
        deadline: float | None,
        ending: Ending,
        watchdog: Watchdog,
        always_waits: bool = False,
        ports: Sequence[PortInput] = (),
        saver: Saves | None = None,
        dumper: Saves | None = None,
    ) -> None:
        self.machine = machine
        self._always_waits, self._saver, self._dumper = always_waits, saver, dumper
        self.stuck = False  # the machine's thread did not return: do not wait for it, and do not use the machine
        self._deadline, self._ending, self._watchdog = deadline, ending, watchdog
        self._input, self._ports = source, ports
        self._status: Status | None = None  # when it was last asked for
        self._terminal = Terminal(source.fd) if isinstance(source, Input) and source.fd is not None else None
        self._keys = KeyParser()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._finished, self._told = threading.Event(), threading.Event()
        self._paused, self._resume = threading.Event(), threading.Event()
        self._pause_wanted = self._input_full = self._in_shell = False
        self._running = self._asked_to_power_off = self._to_say_so = False
        self._previous: dict[int, Any] = {}  # the signal handlers from before
        machine.observe(self)

    @property
    def interactive(self) -> bool:
        return bool(self._terminal and self._terminal.is_tty)

    @property
    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        if self._previous[signal.SIGHUP] == signal.SIG_IGN:  # nohup(1)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self.interactive:
            self._previous[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._on_stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self) -> None:
        """Returns when the guest has ended. Raises what the machine's thread raised."""
        running: Future[Result] | None = None
        # also wakes up select(), which Python would otherwise resume
        old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            self.machine.wait_when_idle(self._always_waits or not self._input.ended)
            if self.interactive and self._terminal:
                say("Ctrl-a h shows the keys")
                self._watchdog.before_exit = self._terminal.restore
                self._terminal.enter_raw()
            running = self._begin()
            if running:
                running.add_done_callback(lambda _: self._done())
                self._attend()
        finally:
            self._resume.set()
            if running:
                self._wait_for(running)
                self.stuck = not running.done()
                if not self.stuck:
                    self._told.wait()  # the pipe is not in use any more
            if self._terminal:
                self._terminal.restore()
            signal.set_wakeup_fd(old_wakeup)
            if not self.stuck:
                os.close(self._wake_read)
                os.close(self._wake_write)
        if running and not self.stuck:
            running.result()

    def _begin(self) -> Future[Result] | None:
        """None if a signal has ended the guest before it began."""
        try:
            running = self.machine.run_async()
        except MachineStateError:
            if not self._ending.requested:
                raise
            return None
        self._running = True
        return running

    def _wait_for(self, running: Future[Result]) -> None:
        """Wait for the run; once it is to end, only as long as it makes progress."""
        busy, asked = Busy(), time.monotonic()
        while not running.done():
            wait([running], LOOK_S)
            waited = time.monotonic() - asked
            if self._ending.requested and waited > STOP_S and (not busy() or waited > BUSY_MOST_S):
                return

    def _done(self) -> None:
        """On the machine's thread."""
        self._finished.set()
        self._wake()
        self._told.set()

    def _wake(self) -> None:
        with suppress(OSError):  # the pipe is full, and wakes the thread up all the same
            os.write(self._wake_write, b"\0")

    def _end(self, outcome: Outcome) -> None:
        """Stop the machine, and what it waits for. The outcome of a guest that has already ended stays."""
        self.machine.stop(outcome)
        self._ending.request()
        if outcome is Outcome.INTERRUPTED:
            sentence = "interrupted; what the run waited for did not come, and its results may not be complete"
            self._watchdog.arm(time.monotonic() + STOP_S + FINISH_S, ExitCode.INTERRUPTED, sentence)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._in_shell and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM and self._can_power_off():
            self._asked_to_power_off = self._to_say_so = True
            self.machine.power_button()
            return
        self._end(Outcome.TIMEOUT if self._late else Outcome.INTERRUPTED)
        if self._in_shell:
            raise SystemExit

    def _can_power_off(self) -> bool:
        """Whether the guest can end by itself, as a computer does when its button is pressed. It is asked once."""
        running = self._running and not self._finished.is_set() and not self._ending.requested and not self._in_shell
        listens = self.machine.power_button_enabled and not self.machine.paused and not self.machine.outcome
        return running and listens and not self._asked_to_power_off

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        """SIGTSTP: restore the terminal's modes before the process stops, and set ours again when it continues."""
        assert self._terminal
        raw = self._terminal.is_raw
        self._terminal.restore()
        signal.raise_signal(signal.SIGSTOP)
        if raw:
            self._terminal.enter_raw()

    def _attend(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._finished.is_set() and not self._ending.requested:
                remaining = self._deadline - time.monotonic() if self._deadline else None
                if remaining is not None and remaining <= 0:
                    self._end(Outcome.TIMEOUT)
                    return
                self._input_full = True  # set before looking, so that input taken meanwhile wakes this thread up
                self._input_full = not self.interactive and self.machine.input_backlog >= INPUT_AHEAD
                at_hand = self._input.watch(selector, not self._input_full)
                for port in self._ports:
                    port.watch(selector)
                look_again = [each.look_again_s for each in (self._input, *self._ports)]
                patience = [each for each in (remaining, *look_again) if each is not None]
                events = {key.fd for key, _ in selector.select(0 if at_hand else min(patience, default=None))}
                if self._wake_read in events:
                    os.read(self._wake_read, 4096)
                if self._to_say_so:
                    self._to_say_so = False
                    say("dwcvmm: the power button was pressed; a second SIGTERM ends the guest at once")
                if at_hand or self._input.has_come(events):
                    self._read_input()
                for port in self._ports:
                    port.attend(events)

    def input_taken(self) -> None:
        """On the machine's thread."""
        has_room = self._input_full and self.machine.input_backlog < INPUT_AHEAD
        if has_room or any(port.has_room_again for port in self._ports):
            self._wake()

    def _read_input(self) -> None:
        """Pass on what was typed."""
        data = self._input.read()
        if self._input.ended:
            self.machine.wait_when_idle(self._always_waits)
            return
        commands: list[Key] = []
        if self.interactive:
            data, commands = self._keys.feed(data)
        if data:
            self.machine.send_input(data)
        for command in commands:
            self._obey(command)

    def _obey(self, command: Key) -> None:
        if command is Key.EXIT:
            self._end(Outcome.INTERRUPTED)
        elif command is Key.HELP:
            say("\n" + HELP, end="")
        elif command is Key.POWER:
            if not self.machine.power_button():
                say("\nthe guest does not listen to the power button")
        elif command is Key.STATUS:
            status = self.machine.status()
            say("\n" + describe(status, self._status))
            self._status = status
        elif command is Key.SAVE:
            self._write(self._saver, "saved", "there is no directory to save the machine in: start it with --save-to")
        elif command is Key.DUMP:
            self._write(self._dumper, "dumped", "there is no file to dump the machine in: start it with --dump-to")
        else:
            self._shell()

    def _write(self, saver: Saves | None, what: str, why_not: str) -> None:
        if not saver:
            say(f"\n{why_not}")
            return

        def tell(done: Future[int]) -> None:
            error = done.exception()
            say(f"\nnot {what}: {error}" if error else f"\n{what} {saver.told(done.result())}")

        def begin() -> None:
            saver.begin().add_done_callback(tell)

        def tell_if_not_begun(begun: Future[None]) -> None:
            if error := begun.exception():
                say(f"\nnot {what}: {error}")

        try:
            self.machine.between(begin).add_done_callback(tell_if_not_begun)
        except MachineStateError as error:
            say(f"\nnot {what}: {error}")

    def attention(self) -> None:
        """On the machine's thread, between elements."""
        if self._pause_wanted:
            self._paused.set()
            self._resume.wait()
            self._resume.clear()

    def _shell(self) -> None:
        assert self._terminal
        self._pause_wanted = True
        self.machine.request_attention()
        while not self._paused.wait(LOOK_S):
            if self._finished.is_set() or self._ending.requested or self._late:
                self._pause_wanted = False
                return
            self.machine.request_attention()
        self._terminal.restore()
        pc = self.machine.pc
        names = {"machine": pc, "engine": pc.engine, "core": pc.core}
        with suppress(SystemExit, KeyboardInterrupt):
            self._in_shell = True
            if self._deadline:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, self._deadline - time.monotonic()))
            code.interact(
                banner="\nThe machine stands between two elements; try print(machine.describe()), engine, core.",
                local=names,
                exitmsg="",
            )
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._in_shell = False
        self._terminal.enter_raw()
        self._pause_wanted = False
        self._paused.clear()
        self._resume.set()
