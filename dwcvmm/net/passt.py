"""passt (https://passt.top): a network for one guest without privileges, in a process of its own.

It gets one end of a pair of sockets and ends with that connection, so also when this process is killed. It goes into
the background once it is ready: what its start returns says whether it is.
"""

from __future__ import annotations

import shutil
import socket
import subprocess

from dwcvmm.errors import HostError
from dwcvmm.net.config import NetConfig
from dwcvmm.net.stream import StreamBackend, enlarge

PROGRAM = "passt"
MTU = 65520  # that passt announces by itself; it splits what the host's networks cannot carry
START_S = 30
NOISE = ("to syslog", "Don't run as root")  # lines that are no reason


def start_passt(config: NetConfig) -> StreamBackend:
    """Start passt for a network device. Raises HostError if it is missing, or does not start."""
    program = shutil.which(PROGRAM)
    if not program:
        raise HostError("there is no passt on this host", "install it (Debian: passt), or use --net tap=NAME")
    mtu = config.mtu or MTU
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    enlarge(theirs)  # what does not fit it drops, and sends again later
    command = [program, "--fd", str(theirs.fileno()), "--quiet", "--stderr", "--mtu", str(mtu), *_forwards(config)]
    try:
        with theirs:
            done = subprocess.run(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at the terminal is for the guest
                timeout=START_S,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        ours.close()
        raise HostError(f"passt does not start: {error}") from error
    except BaseException:
        ours.close()
        raise
    if done.returncode:
        ours.close()
        raise HostError(f"passt does not start: {_reason(done.stderr)}", _remedy(config))
    return StreamBackend(ours, "passt", mtu)


def _forwards(config: NetConfig) -> list[str]:
    options = {"tcp": "--tcp-ports", "udp": "--udp-ports"}
    return [
        part
        for each in config.forwards
        for part in (options[each.protocol], f"{each.address}/{each.port}:{each.guest_port}")
    ]


def _reason(said: bytes) -> str:
    """Its last sentence, without what it says at every start."""
    lines = said.decode(errors="replace").splitlines()
    reasons = [line.strip() for line in lines if line.strip() and not any(noise in line for noise in NOISE)]
    return reasons[-1] if reasons else "it gives no reason"


def _remedy(config: NetConfig) -> str:
    if config.forwards:
        return "are the forwarded ports free, and may this user listen on them? (man passt)"
    return "it needs an interface with a default route, and user namespaces (man passt)"
