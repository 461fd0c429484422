"""The command `dwcvmm`, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module

import click

from dwcvmm.errors import DwcVmmError, ExitCode, as_error
from dwcvmm.streams import complete_descriptors, give_up_streams, say
from dwcvmm.version import VERSION

DEBUG = "DWCVMM_DEBUG"  # environment variable: show errors with their traceback


COMMANDS = (
    "run",
    "restore",
    "replay",
    "ctl",
    "top",
    "doctor",
    "qualify",
    "bench",
    "check",
    "campaign",
    "report",
    "diff",
    "completion",
)


class Commands(click.Group):
    """Each command is in a module of its name, which is imported for it alone: a start costs what its command needs,
    and Ctrl-C while modules are read ends as it does later.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"dwcvmm.cli.{name}"), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="dwcvmm")
def cli() -> None:
    """Run unmodified guests under double execution with comparison."""


def main() -> None:
    """Entry point. Exit codes: dwcvmm.errors.ExitCode."""
    complete_descriptors()
    code = _code_of_command()
    give_up_streams()
    sys.exit(code)


def _code_of_command() -> int:
    try:
        return int(cli.main(standalone_mode=False) or 0)
    except click.UsageError as error:
        usage = f"{error.ctx.get_usage()}\n" if error.ctx else ""
        say(f"{usage}Error: {error.format_message()}")
        return ExitCode.USAGE
    except click.ClickException as error:
        say(f"Error: {error.format_message()}")
        return ExitCode.CONFIG
    except (click.Abort, KeyboardInterrupt, BrokenPipeError):
        return ExitCode.INTERRUPTED
    except SystemExit as end:  # of click: a shell got its completions, or nobody reads stdout any more
        return ExitCode.INTERRUPTED if end.code else ExitCode.OK
    except Exception as error:
        if os.environ.get(DEBUG):
            say(traceback.format_exc(), end="")
        failure = as_error(error)
        say(f"dwcvmm: {failure}" + _hint(failure))
        return failure.exit_code


def _hint(failure: DwcVmmError) -> str:
    if failure.exit_code is not ExitCode.INTERNAL:
        return ""
    return f"; this is a bug of dwcvmm: please report it with what {DEBUG}=1 in the environment shows"
