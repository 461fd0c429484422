"""`dwcvmm completion`: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dwcvmm.errors import InternalError
from dwcvmm.streams import show

PROGRAM, VARIABLE = "dwcvmm", "_DWCVMM_COMPLETE"  # the variable is the one that click looks for


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes dwcvmm's commands.

    In bash: eval "$(dwcvmm completion bash)", also as a line of ~/.bashrc. In zsh the same, in ~/.zshrc. In fish:
    dwcvmm completion fish > ~/.config/fish/completions/dwcvmm.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise InternalError(f"click completes nothing in {shell}")
    show(kind(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source())
