"""Asks a build what a guest of ours costs, by a probe (probe.py) in a process of its own."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from dwcvmm.element.config import Strategy
from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.experiments import probe
from dwcvmm.experiments.builds import Build, refusal, this_build
from dwcvmm.experiments.guestprocess import call
from dwcvmm.experiments.tinyguests import guest_path
from dwcvmm.results.jsonfile import NOT_JSON

MOST_S = 600.0  # a probe takes a few seconds
US = 1e6
WARM_UP = 50  # elements


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe has measured: sums over the turns of the guest that it counted."""

    turns: int
    elements: int
    seconds: float
    handovers: int | None
    phases_s: dict[str, float]
    start_s: float  # from nothing to the first element
    resident_bytes: int  # at most

    @property
    def us_a_turn(self) -> float:
        return US * self.seconds / self.turns

    def phase_us(self, phase: str) -> float:
        """A phase of the report, us an element."""
        return US * self.phases_s.get(phase, 0.0) / self.elements


class MachineRefused(ConfigError):
    """The build cannot make such a machine on this host; the text says why."""


Probe = Callable[[dict[str, Any]], Probed]


def here(spec: dict[str, Any]) -> Probed:
    """A probe in this process."""
    return msgspec.convert(probe.measure(spec), Probed)


def by(build: Build) -> Probe:
    """A probe by a build, which raises MachineRefused, or ConfigError if the build cannot be asked."""
    return partial(_ask, build)


def _ask(build: Build, spec: dict[str, Any]) -> Probed:
    with tempfile.NamedTemporaryFile(suffix=spec["kernel"]) as image:
        image.write(spec["image"])
        image.flush()
        file = {key: value for key, value in spec.items() if key != "image"} | {"kernel": image.name}
        # -P: dwcvmm is the one of the interpreter, wherever this is run
        code, said, errors = call([*build.interpreter, "-P", str(Path(probe.__file__)), json.dumps(file)], MOST_S)
    if code == -signal.SIGKILL:
        raise MachineRefused("it was killed, as the kernel does when memory runs out")
    if code != ExitCode.OK:
        raise refusal(build, code, errors)
    try:
        answer = msgspec.json.decode(said, type=dict[str, Any])
        if "error" in answer:
            whose = "" if build == this_build() else f"the build of {build.path}: "
            raise MachineRefused(whose + answer["error"])
        return msgspec.convert(answer, Probed)
    except NOT_JSON as error:  # or of another form
        raise refusal(build, code, str(error)) from error


def specification(
    name: str, mark: bytes, parameters: Sequence[int], strategy: Strategy, chunk: int, **settings: Any
) -> dict[str, Any]:
    """A probe's (probe.py), of the guest `name` with parameters. `settings`: of the machine."""
    return {
        "kernel": f"{name}.bin",
        "image": set_parameters(guest_path(name).read_bytes(), mark, *parameters),
        "settings": {"strategy": strategy.value, **settings},
        "warm_up": WARM_UP,
        "chunk": chunk,
        "least_s": 0.0,
    }


def set_parameters(image: bytes, mark: bytes, *values: int) -> bytes:
    """Put 32-bit `values` after `mark`, where the guest reads them."""
    at = image.index(mark) + len(mark)
    words = b"".join(value.to_bytes(4, "little") for value in values)
    return image[:at] + words + image[at + len(words) :]
