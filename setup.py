"""Only the parts that pyproject.toml cannot say: the C core, and the tiny guests, which are assembled."""

import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

GUESTS = "dwcvmm/experiments/guests"


class BuildWithGuests(build_py):
    """Adds the tiny guests to a package that is not imported from the sources themselves."""

    def run(self) -> None:
        # what has been removed since an earlier build in this folder would be packed, too
        shutil.rmtree(Path(self.build_lib, "dwcvmm"), ignore_errors=True)
        super().run()
        if not self.editable_mode:
            if not shutil.which("nasm"):
                raise SystemExit("nasm is missing, which assembles the tiny guests: install it (Debian: nasm)")
            out = Path(self.build_lib, GUESTS).absolute()
            subprocess.run(["guest-images/build.sh", str(out)], check=True)


setup(cffi_modules=["cbits/build_core.py:ffibuilder"], cmdclass={"build_py": BuildWithGuests})
