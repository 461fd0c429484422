"""The control socket without a machine: messages, answers, the server and its clients, the file of the socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.control import qmp, server
from dwcvmm.control.client import Client, SilentError
from dwcvmm.control.commands import commands_of, version_facts
from dwcvmm.control.messages import MOST_BYTES, Splitter, TooLongError
from dwcvmm.control.qmp import Conversation, RefusedError
from dwcvmm.control.server import MOST_CLIENTS, MOST_UNREAD, Server
from dwcvmm.errors import ConfigError, HostError
from dwcvmm.socketfile import SocketFile

LIMIT_S = 20.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)


class Fake:
    """A machine that notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = "running"
        self.takes_s = 0.0
        self.on_stop: Callable[[], None] = lambda: None

    def _note(self, what: str) -> None:
        self.asked.append(what)

    def stop(self) -> None:
        time.sleep(self.takes_s)
        self._note("stop")
        self.on_stop()

    def cont(self) -> None:
        self._note("cont")

    def power_down(self) -> None:
        self._note("power_down")

    def reset(self) -> None:
        self._note("reset")

    def quit(self) -> None:
        self._note("quit")

    def details(self) -> Any:
        return {"elements": 5}

    def inject(self, fault: str) -> None:
        if fault == "bad":
            raise ConfigError("no fault")
        if fault == "bug":
            raise ZeroDivisionError("division by zero")
        self._note(f"inject {fault}")

    def save(self) -> Any:
        self._note("save")
        return {"bytes": 1}

    def dump(self) -> Any:
        self._note("save")
        return {"bytes": 2}

    def report(self) -> Any:
        return {"schema": "s", "text": "x" * 100_000}


def answer_of(conversation: Conversation, message: object) -> dict[str, Any]:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    line = conversation.answer(text)
    assert line.endswith(b"\r\n") and line.count(b"\n") == 1
    answer = json.loads(line)
    assert isinstance(answer, dict) and ("return" in answer) != ("error" in answer)
    return answer


def negotiated(fake: Fake | None = None) -> Conversation:
    conversation = Conversation(commands_of(fake or Fake()))
    assert answer_of(conversation, {"execute": "qmp_capabilities"}) == {"return": {}}
    return conversation


# messages


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(at)]


@given(
    st.lists(st.tuples(OBJECTS | st.lists(JSON, max_size=3), st.booleans()), max_size=6),
    st.sampled_from((b"", b"\n", b"\r\n", b"  ")),
    st.lists(st.integers(0, 10**6), max_size=20),
)
def test_messages_are_found_wherever_the_stream_is_cut(
    values: list[tuple[Any, bool]], between: bytes, cuts: list[int]
) -> None:
    """One behind the other, or each on a line; also one that is laid out over several lines."""
    texts = [json.dumps(value, indent=2 if pretty else None).encode() for value, pretty in values]
    splitter = Splitter()
    found = [text for piece in in_pieces(between.join([*texts, b""]), cuts) for text in splitter.feed(piece)]
    assert [json.loads(text) for text in found] == [value for value, _ in values]
    assert not splitter.incomplete


@given(
    st.binary(max_size=200), st.lists(st.integers(0, 10**6), max_size=9), st.lists(st.integers(0, 10**6), max_size=9)
)
def test_what_is_found_does_not_depend_on_the_pieces(data: bytes, cuts: list[int], others: list[int]) -> None:
    splitters = Splitter(), Splitter()
    found = [
        [text for piece in in_pieces(data, at) for text in splitter.feed(piece)]
        for splitter, at in zip(splitters, (cuts, others), strict=True)
    ]
    assert found[0] == found[1]
    assert splitters[0].incomplete == splitters[1].incomplete
    assert b"".join(b"".join(found[0]).split()) in b"".join(data.split()), "nothing is added"


@given(st.binary(max_size=100))
def test_after_what_is_dropped_messages_are_found_again(noise: bytes) -> None:
    splitter = Splitter()
    list(splitter.feed(noise))
    splitter.drop()
    assert not splitter.incomplete
    assert list(splitter.feed(b'{"a": "}"}\n[1]\n')) == [b'{"a": "}"}', b"[1]"]


def test_a_string_ends_with_its_line() -> None:
    """So that a quotation mark that is missing does not swallow what follows."""
    assert list(Splitter().feed(b'{"execute: 1}\n{"b": 1}')) == [b'{"execute: 1}', b'{"b": 1}']
    assert list(Splitter().feed(b'{"a\\\n{"b": 1}')) == [b'{"a\\', b'{"b": 1}']


def test_messages_that_are_too_long() -> None:
    splitter = Splitter()
    with pytest.raises(TooLongError):
        for _ in range(MOST_BYTES // 1000 + 1):
            assert list(splitter.feed(b"[" * 1000)) == []


# answers


def test_an_answer_is_a_line_however_its_id_is_laid_out() -> None:
    assert answer_of(negotiated(), b'{"execute": "query-status", "id": [\n1,\r\n "a\\n"]}')["id"] == [1, "a\n"]


@given(JSON, st.sampled_from(("query-status", "foo", "x-dwc-inject")))
def test_an_id_is_returned_as_it_is(identity: Any, command: str) -> None:
    answer = answer_of(negotiated(), {"execute": command, "id": identity})
    assert answer["id"] == identity and type(answer["id"]) is type(identity)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | OBJECTS.map(lambda o: json.dumps(o).encode()))
def test_whatever_is_said_has_an_answer(text: bytes) -> None:
    assert "error" in answer_of(negotiated(), text)


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        (b"{", "GenericError", "JSON parse error"),
        (b'"\xff"', "GenericError", "JSON parse error"),
        (b"[" * 60_000, "GenericError", "JSON parse error"),
        (b"[1]", "GenericError", "QMP input must be a JSON object"),
        ({}, "GenericError", "QMP input lacks member 'execute'"),
        ({"execute": 1}, "GenericError", "QMP input member 'execute' must be a string"),
        ({"execute": "stop", "arguments": []}, "GenericError", "QMP input member 'arguments' must be an object"),
        ({"execute": "stop", "more": 1}, "GenericError", "QMP input member 'more' is unexpected"),
        ({"execute": "stop", "arguments": {"a": 1}}, "GenericError", "Parameter 'a' is unexpected"),
        ({"execute": "x-dwc-inject"}, "GenericError", "Parameter 'fault' is missing"),
        ({"execute": "x-dwc-inject", "arguments": {"fault": 1}}, "GenericError", "'fault', expected: string"),
        ({"execute": "x-dwc-inject", "arguments": {"fault": "bad"}}, "GenericError", "no fault"),
        ({"execute": "device_add"}, "CommandNotFound", "The command device_add has not been found"),
        ({"execute": "qmp_capabilities"}, "CommandNotFound", "already complete"),
    ],
)
def test_errors_are_those_of_qemu(message: object, kind: str, words: str) -> None:
    error = answer_of(negotiated(), message)["error"]
    assert error["class"] == kind and words in error["desc"]


def test_capabilities_come_first() -> None:
    fake = Fake()
    conversation = Conversation(commands_of(fake))
    refused = answer_of(conversation, {"execute": "quit", "id": 7})
    assert (refused["error"]["class"], refused["id"], fake.asked) == ("CommandNotFound", 7, [])
    wanted = {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}
    assert answer_of(conversation, wanted)["error"]["class"] == "GenericError"
    assert not conversation.negotiated
    assert answer_of(conversation, wanted | {"arguments": {"enable": []}}) == {"return": {}}
    assert conversation.negotiated


def test_the_commands() -> None:
    fake = Fake()
    conversation = negotiated(fake)

    def ask(name: str, **arguments: Any) -> Any:
        return answer_of(conversation, {"execute": name, "arguments": arguments})["return"]

    for name in ("stop", "cont", "system_powerdown", "system_reset", "quit"):
        assert ask(name) == {}
    assert ask("x-dwc-inject", fault="5:e2:rax:3") == {}
    assert fake.asked == ["stop", "cont", "power_down", "reset", "quit", "inject 5:e2:rax:3"]
    assert ask("query-status") == {"status": "running", "running": True, "singlestep": False}
    fake.status = "paused"
    assert ask("query-status") == {"status": "paused", "running": False, "singlestep": False}
    assert ask("query-version") == version_facts()
    assert ask("x-dwc-status") == {"elements": 5}
    assert ask("x-dwc-report")["schema"] == "s"
    assert {"name": "qmp_capabilities"} in ask("query-commands")
    assert ask("x-dwc-save") == {"bytes": 1}
    assert ask("x-dwc-dump") == {"bytes": 2}
    assert len(ask("query-commands")) == 14


def test_greeting_and_events() -> None:
    hello = json.loads(qmp.greeting(version_facts()))["QMP"]
    assert hello["capabilities"] == [] and set(hello["version"]["qemu"]) == {"major", "minor", "micro"}
    assert json.loads(qmp.event("STOP", None, 1795982297.25)) == {
        "event": "STOP",
        "timestamp": {"seconds": 1795982297, "microseconds": 250000},
    }
    assert json.loads(qmp.event("RESET", {"guest": False}))["data"] == {"guest": False}


# the server


class Peer:
    """A client that sees bytes."""

    def __init__(self, path: Path, negotiate: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")
        self.greeting = self.line()
        if negotiate:
            assert self.ask({"execute": "qmp_capabilities"}) == {"return": {}}

    def send(self, message: object) -> None:
        self.socket.sendall(message if isinstance(message, bytes) else json.dumps(message).encode())

    def line(self) -> Any:
        line = self.lines.readline()
        return json.loads(line) if line else None

    def ask(self, message: object) -> Any:
        self.send(message)
        return self.line()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def served(fake: Fake, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "control"
    file = SocketFile(path)
    serving = Server(file.socket, commands_of(fake), qmp.greeting(version_facts()))
    fake.on_stop = lambda: serving.announce(qmp.event("STOP"))
    serving.start()
    before = {thread.name for thread in threading.enumerate()}
    assert "control" in before
    yield path
    alive = [thread for thread in threading.enumerate() if thread.name == "control"]
    serving.close()
    assert alive, "it has served to the end"
    file.close()
    assert not path.exists()
    serving.announce(qmp.event("STOP"))  # comes too late, and does no harm
    serving.close()


def test_a_client_is_served(served: Path, fake: Fake) -> None:
    peer = Peer(served)
    assert "QMP" in peer.greeting
    assert peer.ask({"execute": "query-status", "id": 1})["id"] == 1
    peer.send(b'{"execute": "query-status"}{"execute":\n"query-version"}')
    assert "status" in peer.line()["return"] and "qemu" in peer.line()["return"]
    peer.close()


def test_an_event_comes_before_the_answer_to_all_who_have_negotiated(served: Path) -> None:
    one, two, silent = Peer(served), Peer(served), Peer(served, negotiate=False)
    assert one.ask({"execute": "stop"})["event"] == "STOP"
    assert one.line() == {"return": {}}
    assert two.line()["event"] == "STOP"
    assert silent.ask({"execute": "stop"})["error"]["class"] == "CommandNotFound"
    for peer in (one, two, silent):
        peer.close()


def test_two_at_once(served: Path) -> None:
    def work() -> None:
        peer = Peer(served)
        for number in range(200):
            assert peer.ask({"execute": "query-status", "id": number})["id"] == number
        peer.close()
        done.append(True)

    done: list[bool] = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(done) == 3


@pytest.mark.parametrize("text", [b"", b'{"execute": "query-st', b'{"execute": "x-dwc-report"}' * 5])
def test_a_client_that_goes_away(served: Path, text: bytes) -> None:
    for _ in range(20):
        peer = Peer(served)
        peer.send(text)
        peer.socket.close()
    assert "return" in Peer(served).ask({"execute": "query-status"})


def test_a_client_that_never_reads_is_disconnected(served: Path) -> None:
    peer = Peer(served)
    peer.socket.settimeout(0.5)
    sent = 0
    with pytest.raises((ConnectionError, BrokenPipeError)):
        while sent < 4 * MOST_UNREAD:
            try:
                sent += peer.socket.send(b'{"execute": "x-dwc-report"}\n' * 10)
            except TimeoutError:
                continue
    assert "return" in Peer(served).ask({"execute": "query-status"})
    peer.close()


def test_answers_that_do_not_fit_are_sent_on(served: Path) -> None:
    """100 kB each: more than the kernel takes."""
    peer = Peer(served)
    peer.send(b'{"execute": "x-dwc-report"}' * 8)
    time.sleep(0.2)
    for _ in range(8):
        assert len(peer.line()["return"]["text"]) == 100_000
    peer.close()


def test_a_message_that_is_too_long_ends_the_connection(served: Path) -> None:
    peer = Peer(served)
    peer.send(b"{" * MOST_BYTES + b"{")
    assert "more than" in peer.line()["error"]["desc"]
    assert peer.line() is None
    peer.close()


def test_a_message_without_its_end_is_refused_after_a_while(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "INCOMPLETE_S", 0.2)
    peer = Peer(served)
    refused = peer.ask(b'{"execute": [')
    assert "without its end" in refused["error"]["desc"]
    assert "return" in peer.ask({"execute": "query-status"})
    peer.close()


def test_a_bug_in_a_command_ends_one_connection(served: Path) -> None:
    peer, other = Peer(served), Peer(served)
    answer = peer.ask({"execute": "x-dwc-inject", "arguments": {"fault": "bug"}})
    assert "ZeroDivisionError" in answer["error"]["desc"]
    assert peer.line() is None
    assert "return" in other.ask({"execute": "query-status"})
    peer.close()
    other.close()


def test_more_clients_than_are_served(served: Path) -> None:
    peers = [Peer(served) for _ in range(MOST_CLIENTS)]
    late = socket.socket(socket.AF_UNIX)
    late.settimeout(LIMIT_S)
    late.connect(str(served))
    assert late.recv(1) == b""
    late.close()
    peers.pop().close()
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            peers.append(Peer(served))
            break
        except (json.JSONDecodeError, AssertionError, OSError):
            assert time.monotonic() < end
    for peer in peers:
        assert "return" in peer.ask({"execute": "query-status"})
        peer.close()


# the client of dwcvmm's commands


def test_our_own_client(served: Path, fake: Fake) -> None:
    with Client(served) as client:
        assert client.execute("query-status")["running"]
        assert len(client.execute("x-dwc-report")["text"]) == 100_000
        client.execute("x-dwc-inject", fault="1:e1:rax:1")
        assert fake.asked == ["inject 1:e1:rax:1"]
        with pytest.raises(RefusedError, match="no fault"):
            client.execute("x-dwc-inject", fault="bad")
        assert client.execute("stop") == {}
        assert [event["event"] for event in client.events] == ["STOP"]
        assert client.wait_for_events(0.01)
    with pytest.raises(HostError, match="no machine listens"):
        Client(served.with_name("nobody"))


def test_our_own_client_does_not_wait_for_ever(served: Path, fake: Fake) -> None:
    fake.takes_s = 1.0
    with Client(served, answer_s=0.2) as client, pytest.raises(SilentError, match="does not answer"):
        client.execute("stop")


@pytest.mark.parametrize("said", [b"", b"hello\n", b"{}\n", b"[1]\n", b"{" * (5 << 20)])
def test_our_own_client_and_what_is_no_machine(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def speak() -> None:
            accepted, _ = listening.accept()
            with accepted, suppress(OSError):  # it has heard enough
                accepted.sendall(said)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(HostError, match=r"does not speak QMP|has gone"):
            Client(path, answer_s=LIMIT_S)
        thread.join(LIMIT_S)


# the file


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = SocketFile(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    file.close()
    assert not (tmp_path / "s").exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert path.is_socket()
    file = SocketFile(path)
    with pytest.raises(HostError, match="another process listens"):
        SocketFile(path)
    assert path.is_socket()
    file.close()


@pytest.mark.parametrize(
    ("name", "words"), [("file", "is no socket"), ("no/such", "No such file"), ("n" * 120, "at most 107 bytes")]
)
def test_names_that_cannot_be_used(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("content")
    with pytest.raises(ConfigError, match=words):
        SocketFile(tmp_path / name)
    assert (tmp_path / "file").read_text() == "content"


HOLD = """
import sys, time
from pathlib import Path
from dwcvmm.socketfile import SocketFile
from dwcvmm.sandbox import Sandbox
file = SocketFile(Path(sys.argv[1]))
Sandbox([file.socket.fileno()]).enter()
print("ready", flush=True)
time.sleep(60)
"""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_file_is_removed_however_the_process_ends(tmp_path: Path, number: int) -> None:
    """By SIGKILL, in the sandbox; by a SIGTERM to its group. A socket that another one has made there stays."""
    path = tmp_path / "s"
    for replaced in (False, True):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout and process.stdout.readline() == b"ready\n"
        other = None
        if replaced:
            path.unlink()
            other = SocketFile(path)
        os.killpg(process.pid, number)
        process.wait(LIMIT_S)
        process.stdout.close()
        if other:
            time.sleep(0.3)
            assert path.is_socket()
            other.close()
        else:
            until(lambda: not path.exists())


def test_the_sandbox_lets_connections_be_accepted_there_alone(tmp_path: Path) -> None:
    code = """
import socket, sys
from pathlib import Path
from dwcvmm.socketfile import SocketFile
from dwcvmm.sandbox import Sandbox
ours, other = SocketFile(Path(sys.argv[1])), socket.socket(socket.AF_UNIX)
other.bind(sys.argv[2])
other.listen()
clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
clients[0].connect(sys.argv[1])
clients[1].connect(sys.argv[2])
Sandbox([ours.socket.fileno()]).enter()
ours.socket.accept()[0].setblocking(False)
try:
    other.accept()
except PermissionError:
    print("refused")
try:
    clients[0].send(b"x")
except PermissionError:
    print("refused")
"""
    run = [sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "refused\nrefused\n"), done.stderr


def test_answers_are_valid_for_msgspec_and_json() -> None:
    """Also where text of the host is no UTF-8."""
    assert msgspec.json.decode(qmp.refusal(ConfigError("a\udcff")))["error"]["desc"] == "a\\udcff"
