"""Serves one gdb at a time, on a thread of its own. Whatever it sends, it gets an answer or is disconnected, and the
guest goes on when it has gone.
"""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress

from dwcvmm.errors import as_error
from dwcvmm.gdb.conversation import Conversation
from dwcvmm.gdb.packets import Event, Splitter, encode
from dwcvmm.gdb.target import EndedError, Served
from dwcvmm.serverthread import ServerThread, receive
from dwcvmm.streams import say, write_all

ACK, AGAIN = b"+", b"-"


class Client:
    """Who is connected. `talk`: the conversation."""

    def __init__(self, connection: socket.socket, target: Served) -> None:
        self.socket, self.talk, self.splitter = connection, Conversation(target), Splitter()
        self.last = b""  # that was sent, in case it is to be sent again
        self.gone = False


class Server(ServerThread):
    """`listening`: a socket to accept from. Start it before the sandbox closes. `close` tells the client how the guest
    has ended.
    """

    def __init__(self, listening: socket.socket, target: Served) -> None:
        super().__init__(listening, "gdb", "gdb")
        self._target = target
        self._client: Client | None = None
        target.changed, target.closing = self.wake, self._closing.is_set

    def _serve(self) -> None:
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        while not self._closing.is_set():
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._wake_read in ready:
                self._awake()
            if self._client and self._client.socket in ready:
                self._hear(self._client)
            if self._client:
                self._tell_news(self._client)
            if self._listening in ready:
                self._accept()
            if self._client and (self._client.gone or self._client.talk.over):
                self._part(self._client)
        if self._client:
            self._tell_news(self._client)
            self._part(self._client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:  # it is gone again
            return
        if self._client:  # a guest stands for one debugger at a time
            connection.close()
            return
        connection.setblocking(False)
        self._client = Client(connection, self._target)
        self._selector.register(connection, selectors.EVENT_READ)
        with suppress(EndedError):
            self._target.attach()

    def _part(self, client: Client) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        self._client = None
        self._target.release()

    def _hear(self, client: Client) -> None:
        data = receive(client.socket)
        if data is None:
            return
        client.gone = not data
        for what in client.splitter.feed(data):
            if client.gone or client.talk.over:
                return
            if isinstance(what, Event):
                self._react(client, what)
            else:
                self._answer(client, what)

    def _react(self, client: Client, event: Event) -> None:
        if event is Event.INTERRUPT and client.talk.running:
            self._target.interrupt()
        elif event is Event.DAMAGED and client.talk.acknowledges:
            self._write(client, AGAIN)
        elif event is Event.RESEND:
            self._write(client, client.last)

    def _answer(self, client: Client, packet: bytes) -> None:
        if client.talk.acknowledges:
            self._write(client, ACK)
        if client.talk.running:  # gdb waits for the guest; who does not, is not served meanwhile
            return
        try:
            answer = client.talk.answer(packet)
        except Exception as error:  # a bug: the guest goes on, and others can connect
            say(f"dwcvmm: gdb is disconnected: {as_error(error)}")
            client.gone = True
            return
        if answer is not None:
            self._send(client, answer)

    def _tell_news(self, client: Client) -> None:
        if client.talk.running and not client.gone and (news := client.talk.news()):
            self._send(client, news)

    def _send(self, client: Client, answer: bytes) -> None:
        for remark in client.talk.take_remarks():
            self._write(client, encode(remark))
        client.last = encode(answer)
        self._write(client, client.last)

    def _write(self, client: Client, data: bytes) -> None:
        """A client that does not read is waited for, until the run ends: gdb reads each answer."""
        try:
            write_all(client.socket.fileno(), data, self._closing.is_set)
        except OSError:
            client.gone = True
