#!/usr/bin/env bash
# Build bochs 3.0 from Debian 13's source package (it runs on Debian 12 as well) with our patch: build.sh DIRECTORY
# Prints the path of the binary. The tarball is verified by checksum; a build is kept until the patch changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../lib.sh"
sum=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
out=$(mkdir -p "$1" && cd "$1" && pwd)
patch=$(cat "$here"/* | sha256sum | cut -c1-16)
bochs=$out/bochs-$patch
[ -x "$bochs" ] && { echo "$bochs"; exit; }
need python3 python3-minimal
need g++ g++
need make make
need xz xz-utils
need dpkg-source dpkg-dev
tarball=$out/bochs_3.0+dfsg.orig.tar.xz
if ! echo "$sum  $tarball" | sha256sum --check --status 2>/dev/null; then
  say "downloading the source package of bochs 3.0"
  fetch_source "$out" trixie bochs "${tarball##*/}"
  echo "$sum  $tarball" | sha256sum --check --status || { echo "no intact $tarball; see $out/apt.log" >&2; exit 4; }
fi
say "building bochs (about a minute and a half on two cores)"
rm -rf "$out/bochs-3.0"
tar -C "$out" -xf "$tarball"
python3 "$here/patch.py" "$out/bochs-3.0"
cd "$out/bochs-3.0"
./configure --with-nogui --enable-plugins=no --enable-cpu-level=6 --enable-x86-64 --enable-vmx=2 --enable-avx \
  --enable-evex --enable-protection-keys --enable-all-optimizations --enable-handlers-chaining --enable-memtype \
  --enable-x86-debugger --enable-pci --disable-docbook --disable-debugger --disable-usb CXXFLAGS=-O3 CFLAGS=-O3 \
  >"$out/configure.log" 2>&1 || { tail -5 "$out/configure.log" >&2; exit 4; }
make -j"$(nproc)" >"$out/make.log" 2>&1 || { tail -5 "$out/make.log" >&2; exit 4; }
cp bochs "$bochs"
cd "$out" && rm -rf bochs-3.0
echo "$bochs"
