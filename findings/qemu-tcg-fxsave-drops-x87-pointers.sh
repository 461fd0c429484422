#!/bin/sh
# QEMU TCG 7.2 knows where the last x87 instruction and its operand were (FIP, FDP): FNSTENV stores them. FXSAVE64 stores zeros in
# their place, and FXRSTOR64 loads nothing: after it FNSTENV still shows those of before, whatever was in memory.
# Why: do_xsave_fpu and do_xrstor_fpu (target/i386/tcg/fpu_helper.c) leave the two fields out. So in a whole emulated machine they pass
# from one program, and with nested virtualization from one guest, to the next, and a guest that stores its x87 environment
# (glibc's swapcontext, fegetenv) does not compute the same twice. Intel's CPUs save and restore them (SDM 1 10.5.1).
# Seen with qemu-user 7.2 of Debian 12. Exit code 0: still so, 1: it changed, 2: could not be tried.
set -u
version=1:7.2+dfsg-7+deb12u18+b3
[ "$(dpkg-query -W -f '${Version}' qemu-user 2>/dev/null)" = "$version" ] || apt-get install -y -q --no-install-recommends "qemu-user=$version" >&2 || exit 2
command -v gcc >/dev/null || apt-get install -y -q gcc libc6-dev >&2 || exit 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
cat >pointers.c <<'END'
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct environment { uint32_t control, status, tags, fip, fcs, fdp, fds; };

int main(void)
{
	static unsigned char area[512] __attribute__((aligned(16)));
	struct environment first, after;
	double value = 1.5;
	uint64_t saved[2], other[2] = { 0x1111, 0x2222 };

	__asm__ volatile("fninit; fldl %2; fnstenv %0; fxsave64 %1" : "=m"(first), "=m"(area) : "m"(value));
	memcpy(saved, area + 8, sizeof(saved));
	memcpy(area + 8, other, sizeof(other));
	__asm__ volatile("fxrstor64 %1; fnstenv %0" : "=m"(after) : "m"(area));
	printf("FNSTENV: FIP %s, FDP %s\n", first.fip ? "known" : "0", first.fdp ? "known" : "0");
	printf("FXSAVE64: FIP %s, FDP %s\n", saved[0] ? "known" : "0", saved[1] ? "known" : "0");
	printf("after FXRSTOR64 of others: FIP %s, FDP %s\n", after.fip == first.fip ? "as before" : "changed",
	       after.fdp == first.fdp ? "as before" : "changed");
	return 0;
}
END
gcc -O1 -static -o pointers pointers.c || exit 2
qemu-x86_64 --version | head -1
seen=$(qemu-x86_64 ./pointers) || exit 2
echo "$seen"
[ "$seen" = "FNSTENV: FIP known, FDP known
FXSAVE64: FIP 0, FDP 0
after FXRSTOR64 of others: FIP as before, FDP as before" ]
