#!/bin/sh
# capstone disassembles XGETBV behind the prefixes 66, F2 and F3, with which processors refuse it: 0F 01 D0 takes none of
# them (SDM 2D, "NP"), and raises #UD. What looks for instructions that read host state by capstone finds too many.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs gcc, python3-venv; x86-64 with XSAVE.
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check capstone==5.0.7 || exit 2
cat >run.c <<'C'
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static sigjmp_buf back;
static void refused(int signal) { siglongjmp(back, signal); }

int main(void)
{
	static const unsigned char codes[][5] = { { 0x0f, 0x01, 0xd0, 0xc3 }, { 0x66, 0x0f, 0x01, 0xd0, 0xc3 },
						  { 0xf2, 0x0f, 0x01, 0xd0, 0xc3 }, { 0xf3, 0x0f, 0x01, 0xd0, 0xc3 } };
	unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	signal(SIGILL, refused);
	for (int i = 0; i < 4; i++) {
		memcpy(page, codes[i], sizeof codes[i]);
		if (sigsetjmp(back, 1))
			printf("#UD ");
		else {
			unsigned low, high;
			__asm__ volatile("call *%2" : "=a"(low), "=d"(high) : "r"(page), "c"(0) : "memory");
			printf("runs ");
		}
	}
	printf("\n");
	return 0;
}
C
cat >decode.py <<'PYTHON'
import capstone
decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
for prefix in ("", "66", "f2", "f3"):
    found = [insn.mnemonic for insn in decoder.disasm(bytes.fromhex(prefix + "0f01d0"), 0)]
    print(*(found or ["nothing"]), end=" ")
print()
PYTHON
gcc -O1 -o run run.c || exit 2
processor=$(./run | sed "s, $,,") decoded=$(venv/bin/python decode.py)
echo "capstone $(venv/bin/pip show capstone | sed -n 's/^Version: //p'); prefixes: none 66 F2 F3"
echo "processor: $processor"
echo "capstone:  $decoded"
[ "$processor" = "runs #UD #UD #UD" ] || exit 2
case $decoded in
  "xgetbv xgetbv xgetbv xgetbv"*) exit 0 ;;
esac
echo "it refuses them now"
exit 1
