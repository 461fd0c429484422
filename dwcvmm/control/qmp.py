"""QMP's side of the server (qmp-spec.rst): greeting, negotiation, answers, errors, events. It knows neither sockets nor
machines. The words of errors are QEMU's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dwcvmm.errors import DwcVmmError
from dwcvmm.results.jsonfile import NOT_JSON, json_bytes, readable

GENERIC, NOT_FOUND = "GenericError", "CommandNotFound"
NEGOTIATE = "qmp_capabilities"
TYPES: dict[type, str] = {str: "string", list: "array"}
MEMBERS = ("execute", "arguments", "id")


class RefusedError(DwcVmmError):
    """What the client gets as an error."""

    def __init__(self, description: str, kind: str = GENERIC) -> None:
        super().__init__(description)
        self.kind = kind


@dataclass(frozen=True)
class Command:
    """`call` gets the arguments by name, with `_` for `-`, and returns the answer, None for an empty one. It raises
    DwcVmmError if it refuses.

    required, optional: the arguments, by name, and their types.
    """

    call: Callable[..., Any]
    required: Mapping[str, type] = field(default_factory=dict)
    optional: Mapping[str, type] = field(default_factory=dict)

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        known = {**self.required, **self.optional}
        for name, value in arguments.items():
            if name not in known:
                raise RefusedError(f"Parameter '{name}' is unexpected")
            if not isinstance(value, known[name]):
                raise RefusedError(f"Invalid parameter type for '{name}', expected: {TYPES[known[name]]}")
        for name in self.required:
            if name not in arguments:
                raise RefusedError(f"Parameter '{name}' is missing")
        answer = self.call(**{name.replace("-", "_"): value for name, value in arguments.items()})
        return {} if answer is None else answer


def greeting(version: Mapping[str, Any]) -> bytes:
    return _line({"QMP": {"version": version, "capabilities": []}})


def event(name: str, data: Mapping[str, Any] | None = None, at_s: float | None = None) -> bytes:
    """`at_s`: when it happened, seconds since 1970."""
    seconds, part = divmod(time.time() if at_s is None else at_s, 1)
    what = {"event": name, "timestamp": {"seconds": int(seconds), "microseconds": int(part * 1e6)}}
    return _line(what | ({"data": data} if data else {}))


def refusal(error: DwcVmmError) -> bytes:
    """The answer to what is no message."""
    return _line({"error": _described(error)})


class Conversation:
    """With one client. Only what `commands` has can be asked, and only after QMP's capabilities were negotiated."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self.negotiated = False  # events are sent from then on

    def answer(self, text: bytes) -> bytes:
        """The answer to a message, which may be anything."""
        answer: dict[str, Any] = {}
        try:
            message = _parsed(text)
            if "id" in message:
                identity = bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])["id"])
                answer["id"] = msgspec.Raw(identity.replace(b"\n", b" "))  # between its values: an answer is a line
            answer["return"] = self._execute(message)
        except DwcVmmError as error:
            answer["error"] = _described(error)
        return _line(answer)

    def _execute(self, message: Mapping[str, Any]) -> Any:
        name, arguments = _request(message)
        if not self.negotiated and name != NEGOTIATE:
            raise RefusedError(f"Expecting capabilities negotiation with '{NEGOTIATE}'", NOT_FOUND)
        if self.negotiated and name == NEGOTIATE:
            raise RefusedError("Capabilities negotiation is already complete, command ignored", NOT_FOUND)
        if name == NEGOTIATE:
            return Command(self._negotiate, optional={"enable": list})(arguments)
        if name not in self._commands:
            raise RefusedError(f"The command {name} has not been found", NOT_FOUND)
        return self._commands[name](arguments)

    def _negotiate(self, enable: list[Any] | None = None) -> dict[str, Any]:
        if enable:
            raise RefusedError("There are no capabilities that could be enabled")
        self.negotiated = True
        return {}


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(text)
    except NOT_JSON as error:
        raise RefusedError(f"JSON parse error, {error}") from error
    if not isinstance(message, dict):
        raise RefusedError("QMP input must be a JSON object")
    return message


def _request(message: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The command and its arguments."""
    for member in message:
        if member not in MEMBERS:
            raise RefusedError(f"QMP input member '{member}' is unexpected")
    if "execute" not in message:
        raise RefusedError("QMP input lacks member 'execute'")
    name, arguments = message["execute"], message.get("arguments", {})
    if not isinstance(name, str):
        raise RefusedError("QMP input member 'execute' must be a string")
    if not isinstance(arguments, dict):
        raise RefusedError("QMP input member 'arguments' must be an object")
    return name, arguments


def _described(error: DwcVmmError) -> dict[str, str]:
    return {"class": error.kind if isinstance(error, RefusedError) else GENERIC, "desc": readable(str(error))}


def _line(message: Mapping[str, Any]) -> bytes:
    return json_bytes(message) + b"\r\n"
