"""A gdb server for a machine."""

from __future__ import annotations

import socket
from collections.abc import Callable

from dwcvmm.element.hostprobe import Abilities as HostAbilities
from dwcvmm.errors import ConfigError
from dwcvmm.gdb.machinetarget import MachineTarget
from dwcvmm.gdb.place import listen, parse_place
from dwcvmm.gdb.server import Server
from dwcvmm.kvm.system import System
from dwcvmm.machine import Machine
from dwcvmm.pc.passing import Abilities


def serve_gdb(
    machine: Machine,
    where: str | socket.socket,
    wait: bool = False,
    save: Callable[[], int] | None = None,
    dump: Callable[[], int] | None = None,
    kill: Callable[[], None] | None = None,
) -> Server:
    """Let gdb connect to a machine, from before its first run to the server's `close`. `where`: as for `--gdb`, or a
    socket that listens. `wait`: the guest stands before its first instruction until gdb lets it go on.
    `save`, `dump`: for gdb's `monitor save` and `monitor dump`. `kill`: ends the run for gdb's `kill`, if Machine.stop
    does not.

    Raises ConfigError or HostError.
    """
    if machine.pc.recorder:
        raise ConfigError("a run that is recorded has no debugger: what that changed could not be replayed")
    system = System()
    try:
        host = HostAbilities(system)
        abilities = Abilities(execute=host.breakpoint, access=host.watchpoint)
    finally:
        system.close()
    target = MachineTarget(machine, abilities, save, dump)
    target.kill_by = kill or machine.stop
    server = Server(listen(parse_place(where)) if isinstance(where, str) else where, target)
    if wait:
        target.hold()
    server.start()
    return server
