"""A machine in a file: `dwcvmm run vm.toml`. Its keys are the options of the command (machinekeys.py).

What the file says stands before the options of the command line. So an option that is given once overrides the file's,
and those that may be repeated are added to the file's.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from dwcvmm.cli.machinekeys import as_arguments, file_type, machine_options, place_under
from dwcvmm.errors import ConfigError
from dwcvmm.files import read_file

MOST_BYTES = 1 << 16
ARGUMENT = "machine"
GIVEN = "dwcvmm.machine"  # in click's context: values by key, and whether they are of a file
NOT_TOML = (ValueError, RecursionError)  # also of a number with too many digits, and of arrays within arrays
SAID = " - at `$"  # msgspec's word for the place of an error


class MachineCommand(click.Command):
    """A command whose options may come from a file, which is its argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = self._parse(ctx, args)
        name, help_option = given.get(ARGUMENT), self.get_help_option(ctx)
        helps = help_option is not None and given.get(help_option.name)
        if isinstance(name, str) and not helps and not ctx.resilient_parsing:
            args = [*as_arguments(machine_options(self), read_machine(Path(name), self)), *args]
        ctx.meta[GIVEN] = self._parse(ctx, args)
        return super().parse_args(ctx, args)

    def _parse(self, ctx: click.Context, args: list[str]) -> dict[str, Any]:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        return given


def read_machine(path: Path, command: click.Command) -> dict[str, Any]:
    """A machine's values by key, as the texts and lists that options take, with files relative to that of the machine.

    Raises ConfigError, which names the line and the key, for anything that `command` would not take.
    """
    try:
        text = read_file(path, MOST_BYTES, "that is no description of a machine").decode()
        found = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8, so no machine in TOML (a kernel is given by --kernel)") from error
    except NOT_TOML as error:
        raise ConfigError(f"{path}: {error}") from error
    options = machine_options(command)
    for key in found:
        if key not in options:
            raise ConfigError(f"{_place(path, text, key)}: there is no such key{_nearest(key, options)}")
    try:
        known = msgspec.convert(found, file_type(command))
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(SAID)
        key = where.strip("`").removeprefix(".").partition("[")[0]
        raise ConfigError(f"{_place(path, text, key)}: {_reason(options[key], what)}") from error
    values = {}
    for key in found:
        try:
            values[key] = _texts(options[key], getattr(known, str(options[key].name)), path.parent)
        except (click.BadParameter, ConfigError, ValueError) as error:  # ValueError: too many digits
            why = error.message if isinstance(error, click.BadParameter) else str(error)
            raise ConfigError(f"{_place(path, text, key)}: {why}") from error
    return values


def _texts(option: click.Option, value: Any, folder: Path) -> Any:
    """Raises click.BadParameter or ConfigError if the option does not take such a text."""
    if option.is_flag:
        return value
    texts = [place_under(option, str(each), folder) for each in (value if option.multiple else [value])]
    for each in texts:
        if "\0" in each:  # which no argument of a command can have
            raise ConfigError(f"{each!r} has a zero in it")
        option.type.convert(each, option, None)
    return texts if option.multiple else texts[0]


def _reason(option: click.Option, said: str) -> str:
    """What msgspec said of a value, in TOML's words."""
    if isinstance(option.type, click.Choice):
        kind = "an array of" if option.multiple else "one of"
        return f"expected {kind} {', '.join(option.type.choices)}"
    for ours, word in (("str", "string"), ("int", "integer"), ("bool", "boolean")):
        said = said.replace(f"`{ours}", f"`{word}").replace(f"| {ours}", f"| {word}")
    return said[:1].lower() + said[1:]


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, 1)
    return f": {near[0]}?" if near else ". Keys are the options of dwcvmm run"


def _place(path: Path, text: str, key: str) -> str:
    line = next((number for number, keys in _statements(text) if key in keys), 1)
    return f"{path}, line {line}: {key}"


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The parts of a text that are TOML by themselves: their first line, and what keys they define at the top."""
    part, first, inside = "", 1, False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        part += line
        try:
            found = tomllib.loads(part)
        except NOT_TOML:
            continue
        inside = inside or part.lstrip().startswith("[")  # of a table: what follows belongs to one
        if found and (not inside or part.lstrip().startswith("[")):
            yield first, found
        part, first = "", number + 1


def arguments_of(ctx: click.Context) -> list[str]:
    """What a command was given, also by a file, as arguments."""
    options = machine_options(ctx.command)
    given = {key: ctx.meta[GIVEN].get(option.name) for key, option in options.items()}
    return as_arguments(options, {key: value for key, value in given.items() if _is_value(value)})


def as_toml(ctx: click.Context) -> str:
    """All that a command was given, and else its defaults, as a file that makes the same machine wherever it is kept:
    files have absolute names.
    """
    folder, lines = Path.cwd(), []
    for key, option in machine_options(ctx.command).items():
        value = ctx.meta[GIVEN].get(option.name)
        if not _is_value(value):
            value = [] if option.multiple else option.get_default(ctx)
        if not _is_value(value):
            continue  # there is no default
        if option.multiple:
            texts = ", ".join(_quoted(place_under(option, each, folder)) for each in value)
            lines.append(f"{key} = [{texts}]")
        elif isinstance(value, bool):
            lines.append(f"{key} = {str(value).lower()}")
        elif isinstance(option.type, click.IntRange):
            lines.append(f"{key} = {int(value)}")
        else:
            lines.append(f"{key} = {_quoted(place_under(option, str(value), folder))}")
    return "\n".join(lines)


def _is_value(value: Any) -> bool:
    """Whether this is a value, and neither None nor click's mark for one that is not there."""
    return isinstance(value, str | int | list)


def _quoted(text: str) -> str:
    """A basic string of TOML, which is one of JSON in which DEL is escaped, too."""
    text.encode()  # raises UnicodeEncodeError for a name that is not UTF-8
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
