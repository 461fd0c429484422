#!/usr/bin/env bash
# memtest86+ from its Debian package, a guest of the Linux boot protocol: leaves memtest.bin in build/guests/memtest (or in
# the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
fetch_guest "${1:-$root/build/guests/memtest}" memtest86+ boot/memtest86+x64.bin memtest.bin
