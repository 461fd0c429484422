#!/bin/sh
# A target that says it is i386, as a 64-bit kernel is before it has switched to long mode, makes gdb cut an address of that
# kernel to 32 bits, in a breakpoint and in what is examined: no warning, and the breakpoint is set somewhere else. An expression keeps
# all 64 bits, so `print` shows nothing of it. Who sets breakpoints before the switch has to say i386:x86-64 from the start on.
# Why: an address is put into as many bits as the architecture's pointers have (gdbarch_addr_bit); a value keeps those of its type.
# Seen with gdb 13.1 of Debian 12. Exit code 0: still so, 1: it changed, 2: could not be tried.
set -u
version=13.1-3
[ "$(dpkg-query -W -f '${Version}' gdb 2>/dev/null)" = "$version" ] || apt-get install -y -q "gdb=$version" >&2 || exit 2
address=0xffffffff81a07a30
seen=''
for architecture in i386 i386:x86-64; do
  said=$(gdb -nx -q -batch -ex "set architecture $architecture" -ex "break *$address" -ex "print/x $address" 2>&1) || exit 2
  echo "$said"
  seen="$seen$(echo "$said" | sed -n 's/^Breakpoint 1 at //p; s/^\$1 = //p; s/.*[Ww]arning.*/warned/p' | tr '\n' ' ')"
done
[ "$seen" = "0x81a07a30 $address $address $address " ]
