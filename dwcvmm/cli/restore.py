"""`dwcvmm restore`: a saved machine, from where it was saved to its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dwcvmm.cli.apart import check_apart
from dwcvmm.cli.run import Start, execute, written_files
from dwcvmm.cli.runoptions import RunOptions, restore_options
from dwcvmm.element.config import Tsc
from dwcvmm.saved.folder import SavedReader
from dwcvmm.streams import say


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@restore_options
def restore(directory: Path, **given: Any) -> int:
    """Go on with a machine that was saved in DIRECTORY (docs/save-restore.md), under any strategy.

    What the guest is made of is as it was. Options are those of a run; --disk gives its disks, all of them and in
    their order, if they have other names now.
    """
    options = RunOptions(
        **given,
        kernel=None,
        guest=None,
        bios=None,
        initrd=None,
        modules=(),
        rng=False,
        virtio_console=False,
        nets=(),
        append="",
        no_default_append=True,
        legacy_pc=False,
        memory=0,
        date_ns=0,
        tsc=Tsc.AUTO,
    )

    def load() -> Start:
        check_apart(written_files(options), {"--baseline": options.baseline}, options.disks)
        saved = SavedReader(directory)
        machine = saved.machine
        if not options.quiet:
            say(f"restored     {machine.guest.kernel}, saved under {machine.strategy} at element {machine.element}")
        return Start(Path(machine.guest.kernel), machine.guest.kernel_sha256, saved=saved)

    return execute(options, load, sys.argv[1:])
