#!/bin/sh
# In one tree of Linux' sources, programs for the host that are built below scripts/ do not depend on the headers of the C library, but those below
# tools/ do: the one Kbuild compiles with -MMD, the other with -MD. So a built tree whose files were given one date of long ago (for an image
# that repeats, or a guest whose clock stands in the past) is not as up to date as it looks: the headers are newer than objtool, which is
# compiled again, and since every object depends on objtool, so is the whole kernel.
# Seen with Linux 6.1.192-3 of Debian 12. Exit code 0: still so, 1: it changed, 2: could not be tried.
set -u
version=6.1.192-3
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
for what in flex bison make gcc libc6-dev libelf-dev; do
  dpkg -s "$what" >/dev/null 2>&1 || apt-get install -y -q --no-install-recommends "$what" >&2 || exit 2
done
apt-get download -q -o APT::Sandbox::User=root "linux-source-6.1=$version" >&2 || exit 2
dpkg -x linux-source-6.1_*.deb . || exit 2
tar -xf usr/src/linux-source-6.1.tar.xz --exclude='linux-source-6.1/drivers/*/*/*.[ch]' --exclude='*/Documentation/*/*' --exclude='linux-source-6.1/arch/[!x]*.[chS]' || exit 2
cd linux-source-6.1 || exit 2
{ make ARCH=x86_64 tinyconfig && make ARCH=x86_64 tools/objtool; } >log 2>&1 || { tail -3 log; exit 2; }
echo "scripts/basic/fixdep depends on: $(grep -c /usr/include scripts/basic/.fixdep.cmd) headers of the system"
echo "tools/objtool/check.o depends on: $(grep -c /usr/include tools/objtool/.check.o.cmd) of them"
rebuilt() { make ARCH=x86_64 tools/objtool | grep -c '^  CC '; }
echo "compiled again as it is: $(rebuilt)"
find . -exec touch -h -d 2001-01-01 {} +
again=$(rebuilt)
echo "compiled again if all files of the tree are of 2001: $again"
[ "$again" -gt 10 ] && ! grep -q /usr/include scripts/basic/.fixdep.cmd && grep -q /usr/include tools/objtool/.check.o.cmd
