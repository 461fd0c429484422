#!/usr/bin/env bash
# memtest86+ from its Debian package, a guest of the Linux boot protocol: leaves memtest.bin in build/guests/memtest (or in
# the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=${1:-$here/../../build/guests/memtest}
mkdir -p "$out/packages"
cd "$out"

if ! [ -s memtest.bin ]; then
  fetch_package packages memtest86+ tree
  cp tree/boot/memtest86+x64.bin memtest.bin
  rm -rf tree
fi
