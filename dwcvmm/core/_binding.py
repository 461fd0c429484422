"""The one importer of the C core that cffi builds (cbits/build_core.py). Only the modules of dwcvmm.core import this
one; all others use dwcvmm.core's typed views and verbs. tests/unit/test_core_door.py checks both.
"""

from typing import Any

from dwcvmm._core import ffi, lib

CData = Any  # a cffi pointer, structure or array, whose type only C knows

__all__ = ["CData", "ffi", "lib"]
