"""For tests of phases: an engine without replicas."""

from __future__ import annotations

from dwcvmm.core._binding import lib
from dwcvmm.core.config import Config
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Phase, Strategy


class BareCore(Core):
    """`committed`: elements that count as committed."""

    __slots__ = ()

    def __init__(self, committed: int = 0) -> None:
        super().__init__(Config((), 0, Strategy.OFF))
        self._c.stats.committed = committed

    def set_phase(self, to: Phase) -> None:
        """As the engine does it by itself: a step that there is not ends the process."""
        lib.dwc_set_phase(self._c, to)
