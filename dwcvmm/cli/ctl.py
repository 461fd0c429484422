"""`dwcvmm ctl`: a machine that runs, by its control socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from dwcvmm.control.client import ANSWER_S, Client
from dwcvmm.control.qmp import RefusedError
from dwcvmm.errors import ExitCode
from dwcvmm.files import write_failure
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.status import read_status
from dwcvmm.results.statustext import describe
from dwcvmm.streams import say, show

SAVE_S = 310.0  # longer than the machine takes to say that it takes long
LISTENS_NOT = "the guest does not listen to its power button: nothing will follow"


def _status(client: Client, as_json: bool) -> None:
    answer = client.execute("x-dwc-status")
    if as_json:
        show(pretty_json(answer).decode(), end="")
        return
    show(describe(read_status(answer, "use --json")))


def _power_down(client: Client, as_json: bool) -> None:
    listens = client.execute("x-dwc-status").get("power_button")
    client.execute("system_powerdown")
    if not listens:
        raise RefusedError(LISTENS_NOT)


def _inject(client: Client, as_json: bool, fault: str) -> None:
    client.execute("x-dwc-inject", fault=fault)


def _report(client: Client, as_json: bool, file: str | None = None) -> None:
    content = pretty_json(client.execute("x-dwc-report"))
    if file is None:
        show(content.decode(), end="")
        return
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        raise write_failure("the report", file, error) from error


def _writes(command: str, done: str) -> Callable[[Client, bool], None]:
    """A command that writes the machine."""

    def execute(client: Client, as_json: bool) -> None:
        written = client.execute(command)["bytes"]
        show(pretty_json({"bytes": written}).decode().rstrip() if as_json else f"{done}: {written / 1e6:.1f} MB")

    return execute


def _wait(client: Client, as_json: bool) -> None:
    there = True
    while there:
        for event in client.events:
            show(msgspec.json.encode(event).decode() if as_json else _told(event))
        client.events.clear()
        there = client.wait_for_events(None)


def _told(event: dict[str, Any]) -> str:
    return " ".join([str(event.get("event")), *(f"{name}={value}" for name, value in event.get("data", {}).items())])


def _qmp(client: Client, as_json: bool, name: str, *pairs: str) -> None:
    arguments = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"{pair!r} is not NAME=VALUE")
        arguments[key] = _value(value)
    show(pretty_json(client.execute(name, **arguments)).decode(), end="")


def _value(text: str) -> Any:
    """JSON if it is some, else text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _plain(command: str) -> Callable[[Client, bool], None]:
    def execute(client: Client, as_json: bool) -> None:
        client.execute(command)

    return execute


# by word: what does it, and how many arguments it has at least and at most
COMMANDS: dict[str, tuple[Callable[..., None], int, int]] = {
    "status": (_status, 0, 0),
    "stop": (_plain("stop"), 0, 0),
    "cont": (_plain("cont"), 0, 0),
    "powerdown": (_power_down, 0, 0),
    "reset": (_plain("system_reset"), 0, 0),
    "quit": (_plain("quit"), 0, 0),
    "inject": (_inject, 1, 1),
    "report": (_report, 0, 1),
    "save": (_writes("x-dwc-save", "saved"), 0, 0),
    "dump": (_writes("x-dwc-dump", "dumped"), 0, 0),
    "wait": (_wait, 0, 0),
}


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("command")
@click.argument("arguments", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Status and events as JSON.")
def ctl(path: Path, command: str, arguments: Sequence[str], as_json: bool) -> int:
    """Control the machine whose control socket is PATH (run --control). COMMAND is one of these:

    \b
    status            what it does, in figures (--json: all of them)
    stop, cont        let the guest stand between two elements, with its clock; go on
    powerdown         press the power button
    reset             end as after a reset by the guest
    quit              end the run
    inject FAULT      flip bits, as run --fault does: 5000:e2:rax:3
    report [FILE]     the report as it would be now, as JSON
    save              save it in the directory of run --save-to; it goes on
    dump              write a core dump into the file of run --dump-to; it goes on
    wait              show what happens, until the run has ended
    QMP [NAME=VALUE]  any command of QMP: query-commands shows them

    It exits with 1 if the machine refuses, and with 4 if no machine listens there.
    """
    do, least, most = COMMANDS.get(command, (None, 0, 0))
    if do and not least <= len(arguments) <= most:
        raise click.UsageError(f"{command} takes {least if least == most else f'{least} or {most}'} arguments")
    with Client(path, SAVE_S if command in ("save", "dump") else ANSWER_S) as client:
        try:
            if do:
                do(client, as_json, *arguments)
            else:
                _qmp(client, as_json, command, *arguments)
        except RefusedError as error:
            say(f"dwcvmm: {error}")
            return ExitCode.GUEST_FAILED
    return ExitCode.OK
