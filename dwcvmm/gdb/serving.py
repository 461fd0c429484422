"""A gdb server for a machine, or for a replay."""

from __future__ import annotations

import socket
from collections.abc import Callable

from dwcvmm.element.hostprobe import Abilities as HostAbilities
from dwcvmm.errors import ConfigError
from dwcvmm.gdb.machinetarget import MachineTarget
from dwcvmm.gdb.place import listen, parse_place
from dwcvmm.gdb.replaytarget import ReplayTarget
from dwcvmm.gdb.server import Server
from dwcvmm.kvm.system import System
from dwcvmm.machine import Machine
from dwcvmm.pc.passing import Abilities
from dwcvmm.replay import Replay


def serve_gdb(
    guest: Machine | Replay,
    where: str | socket.socket,
    wait: bool = False,
    save: Callable[[], int] | None = None,
    dump: Callable[[], int] | None = None,
    kill: Callable[[], None] | None = None,
) -> Server:
    """Let gdb connect to a machine or to a replay, from before its first run to the server's `close`. `where`: as for
    `--gdb`, or a socket that listens. `wait`: the guest stands before its first instruction until gdb lets it go on.
    `save`, `dump`: of a machine, for gdb's `monitor save` and `monitor dump`. `kill`: ends the run for gdb's `kill`, if
    the `stop` of machine or replay does not.

    Raises ConfigError or HostError.
    """
    target: MachineTarget | ReplayTarget
    if isinstance(guest, Replay):
        target = ReplayTarget(guest, _abilities())
    elif guest.pc.recorder:
        raise ConfigError("a run that is recorded has no debugger: what that changed could not be replayed")
    else:
        target = MachineTarget(guest, _abilities(), save, dump)
    target.kill_by = kill or guest.stop
    server = Server(listen(parse_place(where)) if isinstance(where, str) else where, target)
    if wait:
        target.hold()
    server.start()
    return server


def _abilities() -> Abilities:
    system = System()
    try:
        host = HostAbilities(system)
        return Abilities(execute=host.breakpoint, access=host.watchpoint)
    finally:
        system.close()
