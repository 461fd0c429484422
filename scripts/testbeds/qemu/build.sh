#!/usr/bin/env bash
# Build Debian 12's QEMU with our patches, and only what the amd testbed uses: build.sh DIRECTORY
# Prints the path of the binary; a build is kept until a patch changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../lib.sh"
out=$(mkdir -p "$1" && cd "$1" && pwd)
qemu=$out/qemu-$(cat "$here"/* | sha256sum | cut -c1-16)
[ -x "$qemu" ] && { echo "$qemu"; exit; }
need python3 python3-minimal
need gcc gcc libc6-dev
need xz xz-utils
need patch patch
need meson meson
need ninja ninja-build
need pkg-config pkg-config
need /usr/include/glib-2.0/glib.h libglib2.0-dev
need /usr/include/pixman-1/pixman.h libpixman-1-dev
need /usr/include/cap-ng.h libcap-ng-dev
need /usr/include/attr/libattr.h libattr1-dev
need /usr/include/libfdt.h libfdt-dev
need /usr/share/qemu/linuxboot_dma.bin qemu-system-data
need /usr/share/seabios/bios-256k.bin seabios
say "downloading the source package of QEMU"
rm -f "$out"/qemu_*.tar.xz
fetch_source "$out" bookworm qemu "qemu_*.debian.tar.xz"
say "building QEMU (about two minutes on two cores)"
rm -rf "$out/tree" && mkdir "$out/tree" && cd "$out/tree"
# no dpkg-source: see fetch_source
tar --strip-components=1 -xf "$out"/qemu_*.orig.tar.xz
tar -xf "$out"/qemu_*.debian.tar.xz
for name in $(sed '/^#/d; s/ .*//' debian/patches/series); do
  patch -p1 -s <"debian/patches/$name" >&2
done
for patch in "$here"/*.patch; do
  patch -p1 -s <"$patch" >&2
done
printf 'CONFIG_%s=y\n' I440FX VIRTIO_PCI VIRTIO_SERIAL VIRTIO_9P >configs/devices/x86_64-softmmu/testbed.mak
mkdir build && cd build
# MACHINE_SLOWER: clock.patch
../configure --extra-cflags=-DMACHINE_SLOWER=8 --target-list=x86_64-softmmu --without-default-features --without-default-devices --with-devices-x86_64=testbed \
  --enable-tcg --enable-virtfs --enable-attr --enable-cap-ng --disable-install-blobs --meson="$(command -v meson)" \
  >"$out/configure.log" 2>&1 || { tail -5 "$out/configure.log" >&2; exit 4; }
ninja qemu-system-x86_64 >"$out/ninja.log" 2>&1 || { tail -5 "$out/ninja.log" >&2; exit 4; }
cp qemu-system-x86_64 "$qemu"
rm -rf "$out/tree"
echo "$qemu"
