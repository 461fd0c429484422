"""A guest run with its console: the machine on a thread of its own, terminal and signals on the main one."""

from __future__ import annotations

import code
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from dwcvmm.console.keys import HELP, Key, KeyParser
from dwcvmm.console.terminal import Terminal
from dwcvmm.machine.machine import Machine, Outcome

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INPUT_BYTES = 4096


class Output:
    """The guest's serial output, to a file descriptor; `on_closed` is called once the reader is gone."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self.on_closed: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        while data and self._fd is not None:
            try:
                data = data[os.write(self._fd, data) :]
            except BrokenPipeError:
                self._fd = None
                if self.on_closed:
                    self.on_closed()


class Session:
    """Runs `machine` to its end, a signal, or `timeout_s`. `input_fd` None: the guest gets no input."""

    def __init__(self, machine: Machine, input_fd: int | None, timeout_s: float | None) -> None:
        self.machine = machine
        self.wall_s = 0.0
        self._deadline = time.monotonic() + timeout_s if timeout_s else None
        self._input_fd = input_fd
        self._terminal = Terminal(input_fd) if input_fd is not None else None
        self._keys = KeyParser()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._finished = threading.Event()
        self._paused, self._resume = threading.Event(), threading.Event()
        self._pause_wanted = False
        self._error: BaseException | None = None
        self.on_start: Callable[[], None] = lambda: None  # called on the machine's thread before the guest runs
        machine.on_attention = self._on_attention

    @property
    def interactive(self) -> bool:
        return bool(self._terminal and self._terminal.is_tty)

    def run(self) -> None:
        """Returns when the guest has ended; raises what the machine's thread raised."""
        worker = threading.Thread(target=self._work, name="machine")
        previous = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        # also wakes select(), which Python would otherwise resume
        old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            if self.interactive and self._terminal:
                self.machine.wait_when_idle()
                print("Ctrl-a h shows the keys", file=sys.stderr)
                self._terminal.enter_raw()
            worker.start()
            self._attend()
        finally:
            self.machine.end(Outcome.INTERRUPTED)  # has no effect on a guest that has ended
            self._resume.set()
            worker.join()
            if self._terminal:
                self._terminal.restore()
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(self._wake_read)
            os.close(self._wake_write)
        if self._error:
            raise self._error

    def _work(self) -> None:
        started = time.monotonic()
        try:
            self.machine.start()
            self.on_start()
            self.machine.run()
        except BaseException as error:
            self._error = error
        finally:
            self.wall_s = time.monotonic() - started
            self.machine.engine.release()
            self._finished.set()
            os.write(self._wake_write, b"\0")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.machine.end(Outcome.INTERRUPTED)

    def _attend(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            if self._input_fd is not None:
                try:
                    selector.register(self._input_fd, selectors.EVENT_READ)
                except PermissionError:  # a regular file: always readable, epoll refuses it
                    self.machine.send_input(os.read(self._input_fd, 1 << 20))
                    self._input_fd = None
            while not self._finished.is_set():
                remaining = self._deadline - time.monotonic() if self._deadline else None
                if remaining is not None and remaining <= 0:
                    self.machine.end(Outcome.TIMEOUT)
                    self._finished.wait()
                    return
                for key, _ in selector.select(remaining):
                    if key.fd == self._wake_read:
                        os.read(self._wake_read, INPUT_BYTES)
                    elif not self._read_input():
                        selector.unregister(key.fd)

    def _read_input(self) -> bool:
        """Pass on what was typed; False at the end of the input."""
        assert self._input_fd is not None
        try:
            data = os.read(self._input_fd, INPUT_BYTES)
        except OSError:  # the terminal has hung up
            data = b""
        if not data:
            return False
        commands: list[Key] = []
        if self.interactive:
            data, commands = self._keys.feed(data)
        if data:
            self.machine.send_input(data)
        for command in commands:
            self._obey(command)
        return True

    def _obey(self, command: Key) -> None:
        if command is Key.EXIT:
            self.machine.end(Outcome.INTERRUPTED)
        elif command is Key.HELP:
            print("\n" + HELP, end="", file=sys.stderr)
        elif command is Key.STATUS:
            stats = self.machine.core.stats
            print(
                f"\n{stats.committed} elements, {stats.rollbacks} rollbacks, {stats.pages_compared} pages compared, "
                f"guest time {self.machine.core.guest_ns / 1e9:.3f} s",
                file=sys.stderr,
            )
        else:
            self._shell()

    def _on_attention(self) -> None:
        """On the machine's thread, between elements."""
        if self._pause_wanted:
            self._paused.set()
            self._resume.wait()
            self._resume.clear()

    def _shell(self) -> None:
        assert self._terminal
        self._pause_wanted = True
        self.machine.request_attention()
        while not self._paused.wait(0.1) and not self._finished.is_set():
            self.machine.request_attention()
        self._terminal.restore()
        names = {"machine": self.machine, "engine": self.machine.engine, "core": self.machine.core}
        code.interact(
            banner="\nThe machine stands between two elements; try print(machine.describe()), engine, core.",
            local=names,
            exitmsg="",
        )
        self._terminal.enter_raw()
        self._pause_wanted = False
        self._paused.clear()
        self._resume.set()
