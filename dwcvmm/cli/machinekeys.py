"""The keys of a machine in a file (machinefile.py). They are made of the options of `dwcvmm run`, so that every option
has a key of the same name: a new option needs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import click
import msgspec

PRINT = "print-config"  # says what becomes of the machine, so it is no part of it
NUMBER = int | float | str  # for types with `bare_numbers`


@runtime_checkable
class NamesFile(Protocol):
    """A type of option whose text contains the name of a file."""

    def under(self, text: str, folder: Path) -> str:
        """The same text, with a relative name made one that starts with `folder`."""


def machine_options(command: click.Command) -> dict[str, click.Option]:
    """Key -> option of a command."""
    options = {_key(each): each for each in command.params if isinstance(each, click.Option)}
    options.pop(PRINT, None)
    return options


def _key(option: click.Option) -> str:
    return next(name.removeprefix("--") for name in option.opts if name.startswith("--"))


def value_type(option: click.Option) -> Any:
    """What a key's value is in a file: options that may be repeated are lists."""
    one = _one_value(option)
    return GenericAlias(list, (one,)) if option.multiple else one


def _one_value(option: click.Option) -> Any:
    kind = option.type
    if option.is_flag:
        return bool
    if isinstance(kind, click.Choice):
        return Literal[tuple(kind.choices)]
    if isinstance(kind, click.IntRange):
        return Annotated[int, msgspec.Meta(ge=kind.min, le=kind.max)]
    if isinstance(kind, click.types.IntParamType):
        return int
    return NUMBER if getattr(kind, "bare_numbers", False) else str


def file_type(command: click.Command) -> type[msgspec.Struct]:
    """The type of a whole file: no key is required. Each field has its option's help as its description."""
    fields: list[tuple[str, Any, Any]] = []
    options = machine_options(command)
    names = {option.name or key: key for key, option in options.items()}
    for name, key in names.items():
        described: Any = Annotated[value_type(options[key]), msgspec.Meta(description=options[key].help or "")]
        fields.append((name, described | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(
        "Machine", fields, rename=names, kw_only=True, frozen=True, forbid_unknown_fields=True, module=__name__
    )


def schema(command: click.Command) -> dict[str, Any]:
    """The JSON schema of a file, for editors."""
    made = msgspec.json.schema(file_type(command))
    parts = made["$defs"]["Machine"]
    properties = {key: {k: v for k, v in each.items() if k != "default"} for key, each in parts["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A machine of dwcvmm run",
        "description": "Each key is an option of dwcvmm run. Names of files are relative to the folder of this file.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def place_under(option: click.Option, text: str, folder: Path) -> str:
    """The text of an option's value, with the file that it names (if any) made relative to `folder`."""
    if isinstance(option.type, NamesFile):
        return option.type.under(text, folder)
    return str(folder / text) if isinstance(option.type, click.Path) else text


def as_arguments(options: Mapping[str, click.Option], values: Mapping[str, Any]) -> list[str]:
    """Values by key -> arguments for a command line. A flag that is false has none, or its opposite."""
    arguments: list[str] = []
    for key, value in values.items():
        if options[key].is_flag:
            arguments += [f"--{key}"] if value else options[key].secondary_opts[:1]
        else:
            for each in value if options[key].multiple else [value]:
                arguments += [f"--{key}", str(each)]
    return arguments
