#!/usr/bin/env bash
# Build bochs 3.0 from Debian 13's source package (it runs on Debian 12 as well): bochs.sh DIRECTORY
# Prints the path of the binary. The tarball is verified by checksum; a finished build is kept.
set -eu
. "$(dirname "$0")/../lib.sh"
sum=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
out=$(mkdir -p "$1" && cd "$1" && pwd)
[ -x "$out/bochs" ] && { echo "$out/bochs"; exit; }
need g++ g++
need make make
need xz xz-utils
need dpkg-source dpkg-dev
tarball=$out/bochs_3.0+dfsg.orig.tar.xz
if ! echo "$sum  $tarball" | sha256sum --check --status 2>/dev/null; then
  say "downloading the source package of bochs 3.0"
  mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -m1 '/debian/*$' || true)
  [ -n "$mirror" ] || mirror=$(sed -n 's/^deb *\(\[.*\]\)* *\([^ ]*\/debian\/*\) .*/\2/p' /etc/apt/sources.list | head -1)
  mkdir -p "$out/lists/partial"
  printf 'Types: deb-src\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: %s\n' \
    "$mirror" /usr/share/keyrings/debian-archive-keyring.gpg >"$out/trixie.sources"
  apt="apt-get -q -o Dir::Etc::SourceList=$out/trixie.sources -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$out/lists"
  $apt update >"$out/apt.log" 2>&1
  # a mirror may lack the .dsc: the tarball is what counts
  (cd "$out" && $apt -o APT::Sandbox::User=root source --download-only bochs >>"$out/apt.log" 2>&1) || true
  echo "$sum  $tarball" | sha256sum --check --status || { echo "no intact $tarball; see $out/apt.log" >&2; exit 4; }
fi
say "building bochs (about a minute and a half on two cores)"
tar -C "$out" -xf "$tarball"
cd "$out/bochs-3.0"
./configure --with-nogui --enable-plugins=no --enable-cpu-level=6 --enable-x86-64 --enable-vmx=2 --enable-avx \
  --enable-evex --enable-protection-keys --enable-all-optimizations --enable-handlers-chaining --enable-memtype \
  --enable-x86-debugger --enable-pci --disable-docbook --disable-debugger --disable-usb CXXFLAGS=-O3 CFLAGS=-O3 \
  >"$out/configure.log" 2>&1 || { tail -5 "$out/configure.log" >&2; exit 4; }
make -j"$(nproc)" >"$out/make.log" 2>&1 || { tail -5 "$out/make.log" >&2; exit 4; }
cp bochs "$out/bochs"
cd "$out" && rm -rf bochs-3.0
echo "$out/bochs"
