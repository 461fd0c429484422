"""The command `dwcvmm`, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys

import click

from dwcvmm.cli.bench import bench
from dwcvmm.cli.campaign import campaign
from dwcvmm.cli.check import check
from dwcvmm.cli.diff import diff
from dwcvmm.cli.doctor import doctor
from dwcvmm.cli.report import report
from dwcvmm.cli.run import run
from dwcvmm.errors import DwcVmmError, ExitCode


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dwcvmm")
def cli() -> None:
    """Run unmodified guests under double execution with comparison."""


cli.add_command(run)
cli.add_command(doctor)
cli.add_command(bench)
cli.add_command(check)
cli.add_command(campaign)
cli.add_command(report)
cli.add_command(diff)


def main() -> None:
    """Entry point. Exit codes: dwcvmm.errors.ExitCode."""
    try:
        code = cli.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        code = ExitCode.USAGE
    except click.ClickException as error:
        error.show()
        code = ExitCode.CONFIG
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # stdout is closed: nobody to tell; keep the interpreter from flushing into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.INTERRUPTED
    except DwcVmmError as error:
        click.echo(f"dwcvmm: {error}", err=True)
        code = error.exit_code
    sys.exit(int(code or 0))
