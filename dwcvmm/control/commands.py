"""What can be asked of a machine by its control socket: QEMU's commands, and our own under x-dwc-."""

from __future__ import annotations

from typing import Any, Protocol

from dwcvmm.control.qmp import NEGOTIATE, Command
from dwcvmm.version import VERSION


class Controls(Protocol):
    """A machine as the commands need it. Methods raise DwcVmmError if they cannot do it."""

    @property
    def status(self) -> str:
        """One of QEMU's RunState: running, paused, shutdown."""

    def stop(self) -> None: ...

    def cont(self) -> None: ...

    def power_down(self) -> None: ...

    def reset(self) -> None: ...

    def quit(self) -> None: ...

    def details(self) -> Any: ...

    def inject(self, fault: str) -> None: ...

    def report(self) -> Any: ...

    def save(self) -> Any: ...

    def dump(self) -> Any: ...


def version_facts() -> dict[str, Any]:
    """Under QEMU's names, since clients expect them; ours."""
    major, minor, micro = [*(int(part) if part.isdigit() else 0 for part in VERSION.split(".")), 0, 0, 0][:3]
    return {"qemu": {"major": major, "minor": minor, "micro": micro}, "package": f"dwcvmm {VERSION}"}


def commands_of(controls: Controls) -> dict[str, Command]:
    def query_status() -> dict[str, Any]:
        status = controls.status
        return {"status": status, "running": status == "running", "singlestep": False}

    def query_commands() -> list[dict[str, str]]:
        return [{"name": name} for name in sorted([*commands, NEGOTIATE])]

    commands = {
        "query-status": Command(query_status),
        "query-version": Command(version_facts),
        "query-commands": Command(query_commands),
        "stop": Command(controls.stop),
        "cont": Command(controls.cont),
        "system_powerdown": Command(controls.power_down),
        "system_reset": Command(controls.reset),
        "quit": Command(controls.quit),
        "x-dwc-status": Command(controls.details),
        "x-dwc-inject": Command(controls.inject, required={"fault": str}),
        "x-dwc-report": Command(controls.report),
        "x-dwc-save": Command(controls.save),
        "x-dwc-dump": Command(controls.dump),
    }
    return commands
