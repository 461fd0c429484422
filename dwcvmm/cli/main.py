"""The command `dwcvmm`, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
import traceback

import click

from dwcvmm.cli.bench import bench
from dwcvmm.cli.campaign import campaign
from dwcvmm.cli.check import check
from dwcvmm.cli.completion import completion
from dwcvmm.cli.ctl import ctl
from dwcvmm.cli.diff import diff
from dwcvmm.cli.doctor import doctor
from dwcvmm.cli.report import report
from dwcvmm.cli.run import run
from dwcvmm.cli.top import top
from dwcvmm.errors import DwcVmmError, ExitCode, as_error
from dwcvmm.streams import complete_descriptors, give_up_streams, say

DEBUG = "DWCVMM_DEBUG"  # environment variable: show errors with their traceback


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dwcvmm")
def cli() -> None:
    """Run unmodified guests under double execution with comparison."""


cli.add_command(run)
cli.add_command(ctl)
cli.add_command(top)
cli.add_command(doctor)
cli.add_command(bench)
cli.add_command(check)
cli.add_command(campaign)
cli.add_command(report)
cli.add_command(diff)
cli.add_command(completion)


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
