#!/bin/sh
# passt makes a user namespace, which the kernel refuses in a chroot (user_namespaces(7)): also for root, and so in machines whose
# first process has gone to its root by chroot(2) alone. What helps is to move the mount to / first, as switch_root(8) does.
# And --one-off, which --fd implies, is refused as redundant beside it, unlike other options that are given twice.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs passt, python3, root, a default route.
set -u
[ "$(id -u)" = 0 ] && command -v passt >/dev/null && unshare --user true 2>/dev/null || exit 2
folder=$(mktemp -d) || exit 2
trap 'umount -l "$folder" 2>/dev/null; rmdir "$folder"' EXIT
mount --rbind / "$folder" && mount --make-rslave "$folder" || exit 2
cat >/tmp/passt-start-$$.py <<'PYTHON'
import socket, subprocess, sys
ours, theirs = socket.socketpair()
done = subprocess.run(["passt", "--fd", str(theirs.fileno()), "--quiet", "--stderr", *sys.argv[1:]],
                      pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, capture_output=True, text=True)
said = [line for line in done.stderr.splitlines() if line and "syslog" not in line and "root" not in line]
print("starts" if done.returncode == 0 else said[-1])
PYTHON
plain=$(python3 /tmp/passt-start-$$.py)
caged=$(chroot "$folder" python3 /tmp/passt-start-$$.py)
twice=$(python3 /tmp/passt-start-$$.py --one-off)
rm -f /tmp/passt-start-$$.py
echo "passt --fd:            $plain"
echo "the same in a chroot:  $caged"
echo "passt --fd --one-off:  $twice"
[ "$plain" = starts ] || exit 2
[ "$caged" != starts ] && [ "$twice" = "Redundant --one-off option" ]
