"""Runs a guest that counts its turns, and measures them: `PYTHON -P probe.py SPEC`, with the interpreter of any build.

Everything here is of Python and of the interface that docs/api.md describes, so that a build of another version can be
asked as well. SPEC and the result are JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

TURNS_LEFT = "r12"  # where the guest counts down


def resident_bytes() -> int:
    """The most memory that this process has had in RAM so far."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def shown(machine: Any) -> dict[str, Any]:
    """What a machine shows of its run so far."""
    report = machine.report()
    phases = report.phases_s
    return {
        "turns_left": machine.registers()[TURNS_LEFT],
        "seconds": machine.seconds,
        "elements": machine.elements,
        "handovers": getattr(report.elements, "handovers", None),  # in reports since 2026-11-29
        "phases_s": {name: getattr(phases, name) for name in phases.__struct_fields__},
    }


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """`kernel`: its file; `image`: its content, if that is not in the file; `settings`: of the machine; `warm_up`:
    elements; then pieces of `chunk` elements, until they took `least_s` together. Returns sums over those: `turns` of
    the guest, `elements`, `seconds`, `handovers` (null if the build does not count them), `phases_s`; and `start_s`,
    from nothing to the first element, and `resident_bytes`, at most.
    """
    from dwcvmm import Machine

    from_s = time.monotonic()
    with Machine(spec["kernel"], image=spec.get("image"), rtc="fixed", **spec["settings"]) as machine:
        machine.step(1)
        start_s = time.monotonic() - from_s
        if spec["warm_up"]:
            machine.step(spec["warm_up"])
        before = after = shown(machine)
        while after is before or after["seconds"] - before["seconds"] < spec["least_s"]:
            if machine.step(spec["chunk"]).outcome:
                raise RuntimeError(f"the guest ended: {machine.outcome}")
            after = shown(machine)
    counted = None not in (before["handovers"], after["handovers"])
    return {
        "turns": before["turns_left"] - after["turns_left"],
        "elements": after["elements"] - before["elements"],
        "seconds": after["seconds"] - before["seconds"],
        "handovers": after["handovers"] - before["handovers"] if counted else None,
        "phases_s": {name: after["phases_s"][name] - before["phases_s"][name] for name in after["phases_s"]},
        "start_s": start_s,
        "resident_bytes": resident_bytes(),
    }


def main() -> int:
    """Prints the result, or {"error": text} if the machine cannot be had."""
    try:
        from dwcvmm.errors import DwcVmmError

        print(json.dumps(measure(json.loads(sys.argv[1]))))
    except DwcVmmError as error:
        print(json.dumps({"error": str(error)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
