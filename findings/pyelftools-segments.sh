#!/bin/sh
# pyelftools reads no segments of a file whose section headers are odd, though segments do not need those: U-Boot's
# ELF file for x86_64 has a .dynsym and a .dynamic without a table of strings (its linker script drops .dynstr).
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs apt, python3-venv, binutils.
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
apt-get download -q -o APT::Sandbox::User=root u-boot-qemu=2023.01+dfsg-2+deb12u3 >/dev/null && dpkg-deb -x u-boot-qemu_*.deb . || exit 2
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check pyelftools==0.33 || exit 2
file=usr/lib/u-boot/qemu-x86_64/uboot.elf
echo "pyelftools $(venv/bin/pip show pyelftools | sed -n 's/^Version: //p'), $(readelf --version | head -1)"
echo "readelf shows the segments:"
readelf --program-headers --wide "$file" 2>/dev/null | grep LOAD || exit 2
cat >read.py <<'PYTHON'
import sys
from elftools.elf.elffile import ELFFile
with open(sys.argv[1], "rb") as file:
    try:
        print([segment["p_type"] for segment in ELFFile(file).iter_segments()])
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(10)
PYTHON
echo "pyelftools:"
venv/bin/python read.py "$file"
code=$?
[ $code = 10 ] && exit 0
[ $code = 0 ] && { echo "it reads them now"; exit 1; }
exit 2
