"""The servers by which others reach the machine of a command: its control socket, and gdb's."""

from __future__ import annotations

import _thread
import signal
from socket import socket
from threading import Event

from dwcvmm.cli.dumper import Dumper
from dwcvmm.cli.saver import Saver
from dwcvmm.control import commands, qmp
from dwcvmm.control.machinecontrol import MachineControl
from dwcvmm.control.server import Server
from dwcvmm.gdb.place import address_of
from dwcvmm.gdb.server import Server as GdbServer
from dwcvmm.gdb.serving import serve_gdb
from dwcvmm.machine import Machine
from dwcvmm.pc.result import Outcome
from dwcvmm.replay import Replay
from dwcvmm.results import reportfile
from dwcvmm.socketfile import SocketFile
from dwcvmm.streams import say


def end(machine: Machine, outcome: Outcome) -> None:
    """End the guest, for a client."""
    machine.stop(outcome)
    _thread.interrupt_main(signal.SIGTERM)  # the session waits for what hangs as after any other end


def serve_control(
    machine: Machine, file: SocketFile, base: reportfile.Report | None, saver: Saver | None, dumper: Dumper | None
) -> Server:
    """Let the machine be controlled by its socket, from now on."""

    control = MachineControl(
        machine,
        lambda outcome: end(machine, outcome),
        lambda: machine.report(base),
        saver.begin if saver else None,
        dumper.save if dumper else None,
    )
    server = Server(file.socket, commands.commands_of(control), qmp.greeting(commands.version_facts()))
    control.announce = server.announce
    server.start()
    return server


def serve_debugger(
    machine: Machine, listening: socket, wait: bool, saver: Saver | None, dumper: Dumper | None
) -> GdbServer:
    """Let gdb connect from now on; stderr says where, as the port may be any."""
    save, dump = saver.save if saver else None, dumper.save if dumper else None
    server = serve_gdb(machine, listening, wait, save, dump, lambda: end(machine, Outcome.INTERRUPTED))
    say_where(listening)
    return server


def say_where(listening: socket) -> None:
    say(f"gdb          target remote {address_of(listening)}")


def serve_replay(replay: Replay, listening: socket, wait: bool, killed: Event) -> GdbServer:
    """The same for a replay. `killed` is set when gdb ends it."""

    def kill() -> None:
        killed.set()
        replay.stop()

    server = serve_gdb(replay, listening, wait, kill=kill)
    say_where(listening)
    return server
