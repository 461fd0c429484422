"""Serves the clients of a control socket, on a thread of its own: it waits for them in the kernel, so that a machine
that nobody controls is not slowed down. Whatever a client does, it gets an answer or is disconnected.
"""

from __future__ import annotations

import os
import queue
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dwcvmm.control import qmp
from dwcvmm.control.messages import Splitter, TooLongError
from dwcvmm.errors import DwcVmmError, as_error
from dwcvmm.serverthread import PIECE, ServerThread, receive

MOST_CLIENTS = 16
MOST_UNREAD = 1 << 20  # bytes of answers and events that a client may leave unread
INCOMPLETE_S = 1.0  # after which a message that does not go on is refused
FLUSH_S = 0.3  # for clients to take the last answers and events
MOST_PAUSE_S = 0.05


@dataclass(eq=False)
class Client:
    socket: socket.socket
    conversation: qmp.Conversation
    splitter: Splitter = field(default_factory=Splitter)
    unsent: bytearray = field(default_factory=bytearray)
    heard: float = 0.0  # when its last bytes came, by time.monotonic()
    gone: bool = False


class Server(ServerThread):
    """`listening`: a socket to accept from. Start it before the sandbox closes."""

    def __init__(self, listening: socket.socket, commands: Mapping[str, qmp.Command], greeting: bytes) -> None:
        super().__init__(listening, "control", "the control socket")
        self._commands, self._greeting = commands, greeting
        self._clients: list[Client] = []
        self._events: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def announce(self, event: bytes) -> None:
        """From any thread: send an event to all clients that have negotiated. After close() nothing happens."""
        self._events.put(event)
        self.wake()

    def _serve(self) -> None:
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._awake)
        while not self._closing.is_set():
            ready = self._selector.select(self._patience())
            began = time.monotonic()
            for key, mask in ready:
                self._attend(key.data, mask)
            self._send_events()
            self._refuse_what_does_not_go_on()
            self._settle()
            # Python's global lock belongs to the guest's thread for at least as long
            time.sleep(min(time.monotonic() - began, MOST_PAUSE_S))
        self._flush()

    def _patience(self) -> float | None:
        waits = [each.heard for each in self._clients if each.splitter.incomplete]
        return max(0.0, min(waits) + INCOMPLETE_S - time.monotonic()) if waits else None

    def _attend(self, who: Client | Callable[[], object], mask: int) -> None:
        if not isinstance(who, Client):
            who()
            return
        if mask & selectors.EVENT_READ:
            self._hear(who)
        if mask & selectors.EVENT_WRITE:
            self._send(who)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except OSError:  # it is gone again, or there are no descriptors left
            return
        if len(self._clients) >= MOST_CLIENTS:
            accepted.close()
            return
        accepted.setblocking(False)
        client = Client(accepted, qmp.Conversation(self._commands))
        self._clients.append(client)
        self._selector.register(accepted, selectors.EVENT_READ, client)
        self._tell(client, self._greeting)

    def _hear(self, client: Client) -> None:
        data = receive(client.socket)
        if data is None:
            return
        if not data:
            client.gone = True
            return
        client.heard = time.monotonic()
        try:
            for text in client.splitter.feed(data):
                answer = client.conversation.answer(text)
                self._send_events()  # a command's events come before its answer
                self._tell(client, answer)
                if client.gone:
                    return
        except TooLongError as error:
            self._disconnect(client, qmp.RefusedError(str(error)))
        except Exception as error:  # a bug: the guest runs on, and the others are served
            self._disconnect(client, as_error(error))

    def _disconnect(self, client: Client, why: DwcVmmError) -> None:
        self._tell(client, qmp.refusal(why))
        client.gone = True

    def _tell(self, client: Client, message: bytes) -> None:
        client.unsent += message
        self._send(client)
        if len(client.unsent) > MOST_UNREAD:
            client.gone = True

    def _send(self, client: Client) -> None:
        try:
            while client.unsent:
                del client.unsent[: os.write(client.socket.fileno(), client.unsent[:PIECE])]
        except BlockingIOError:
            pass
        except OSError:
            client.gone = True

    def _send_events(self) -> None:
        while not self._events.empty():
            event = self._events.get()
            for client in self._clients:
                if client.conversation.negotiated and not client.gone:
                    self._tell(client, event)

    def _refuse_what_does_not_go_on(self) -> None:
        for client in self._clients:
            if client.splitter.incomplete and time.monotonic() >= client.heard + INCOMPLETE_S:
                client.splitter.drop()
                self._tell(client, qmp.refusal(qmp.RefusedError("JSON parse error, a message without its end")))

    def _settle(self) -> None:
        """Disconnect those who are gone; wait for room where something is unsent."""
        for client in [each for each in self._clients if each.gone]:
            self._selector.unregister(client.socket)
            client.socket.close()
            self._clients.remove(client)
        for client in self._clients:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
            if self._selector.get_key(client.socket).events != wanted:
                self._selector.modify(client.socket, wanted, client)

    def _flush(self) -> None:
        until = time.monotonic() + FLUSH_S
        self._send_events()
        while any(each.unsent and not each.gone for each in self._clients) and time.monotonic() < until:
            time.sleep(0.01)
            for client in self._clients:
                self._send(client)
        for client in self._clients:
            client.gone = True
        self._settle()
