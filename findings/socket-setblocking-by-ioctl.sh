#!/bin/sh
# CPython's socket.setblocking() and os.set_blocking() are ioctl(FIONBIO) on Linux, not fcntl(F_SETFL), as one may expect of a
# descriptor's flag. So a seccomp filter that lets descriptors be made non-blocking by fcntl(2) alone breaks servers in Python:
# `accept` works, and the first setblocking(False) fails with EPERM.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs python3, strace.
set -u
command -v strace >/dev/null && command -v python3 >/dev/null || exit 2
calls=$(mktemp) || exit 2
trap 'rm -f "$calls"' EXIT
strace -f -e trace=ioctl,fcntl -o "$calls" python3 -c '
import os, socket
one, other = socket.socketpair()
one.setblocking(False)
os.set_blocking(other.fileno(), False)
' || exit 2
python3 --version
grep -E 'FIONBIO|F_SETFL' "$calls"
[ "$(grep -c FIONBIO "$calls")" = 2 ] && ! grep -q F_SETFL "$calls" && exit 0
exit 1
