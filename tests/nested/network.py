"""A Linux guest on the network, inside a testbed: network.py DIRECTORY STRATEGY ...

For each strategy the guest of guest-images/net gets an address from passt, fetches FILE_BYTES from a server of this
machine, and serves as much: to curl at once, by connections one after the other, and by several at a time. What came of
it is in STRATEGY.net.json, beside what inside.py leaves. A guest is told to end; the one of LOSES_PASST ends when its
carrier is gone, since passt is killed.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from inside import Boot, child, keep_dmesg

ROOT = Path(__file__).parents[2]
GUEST = ROOT / "build" / "guests" / "net"
FILE_BYTES = 8 << 20
IN_TURN, AT_ONCE = 50, 10
SERVER_PORT, FORWARDED_PORT = 8099, 8098
LIMIT_S = 240
HELLO = b"hello\n"
LOSES_PASST = "sequential"


class Visit(msgspec.Struct, frozen=True):
    """What was exchanged with a guest. Times in seconds, by the machine's clock."""

    offered_sha256: str  # of the file that the guest fetches
    got_sha256: str  # of the file that curl has got from the guest
    in_turn: int  # answers that were right
    at_once: int
    file_s: float
    in_turn_s: float


def curl(*arguments: str) -> bytes:
    return subprocess.run(["curl", "-sS", "--max-time", "100", *arguments], capture_output=True).stdout


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


def kill_passt() -> None:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"--fd" in words and f"127.0.0.1/{FORWARDED_PORT}:80".encode() in words:
                os.kill(int(process.name), signal.SIGKILL)


def tell_to_end() -> None:
    curl(f"http://127.0.0.1:{FORWARDED_PORT}/cgi-bin/done")


def visit(console: Path, gone: Callable[[], bool], offered: bytes, end: Callable[[], None]) -> Visit:
    def serving() -> bool:
        return gone() or (console.exists() and "DWCVMM-SERVING" in console.read_text(errors="replace"))

    wait_for(serving, "the guest does not serve")
    url, started = f"http://127.0.0.1:{FORWARDED_PORT}", time.monotonic()
    got = curl(f"{url}/file")
    file_s, started = time.monotonic() - started, time.monotonic()
    in_turn = curl(f"{url}/small?[1-{IN_TURN}]").count(HELLO)
    in_turn_s = time.monotonic() - started
    at_once = curl("--parallel", "--parallel-immediate", f"{url}/small?[1-{AT_ONCE}]").count(HELLO)
    end()
    wait_for(gone, "the guest does not end")
    sums = hashlib.sha256(offered).hexdigest(), hashlib.sha256(got).hexdigest()
    return Visit(*sums, in_turn, at_once, file_s, in_turn_s)


def run(strategy: str, directory: Path, offered: bytes) -> None:
    print(strategy, flush=True)
    options = f"--net user,forward=tcp:127.0.0.1:{FORWARDED_PORT}:80 --append dwc.fetch={SERVER_PORT}"
    boot = Boot(
        strategy,
        f"--kernel {GUEST}/vmlinuz --initrd {GUEST}/initramfs.cpio --strategy {strategy} {options}",
        limit_s=LIMIT_S,
    )
    pid = os.fork()
    if not pid:
        os._exit(child(boot, directory))
    left: list[int] = []

    def gone() -> bool:
        if not left and os.waitpid(pid, os.WNOHANG)[0]:
            left.append(pid)
        return bool(left)

    end = kill_passt if strategy == LOSES_PASST else tell_to_end
    result = visit(directory / f"{strategy}.log", gone, offered, end)
    (directory / f"{strategy}.net.json").write_bytes(msgspec.json.encode(result))


def main(directory: Path, strategies: list[str]) -> None:
    files = directory / "served"
    files.mkdir(exist_ok=True)
    offered = hashlib.shake_256(b"offered").digest(FILE_BYTES)
    (files / "file").write_bytes(offered)
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(files), str(SERVER_PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for strategy in strategies:
                run(strategy, directory, offered)
        finally:
            server.terminate()
            keep_dmesg(directory)


if __name__ == "__main__":
    import dwcvmm.cli.main  # noqa: F401 # before the forks

    main(Path(sys.argv[1]), sys.argv[2:])
