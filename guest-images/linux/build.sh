#!/usr/bin/env bash
# The Linux guest: Debian's cloud kernel and an initramfs of busybox and one script.
# Leaves vmlinuz and initramfs.cpio in build/guests/linux (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../build/guests/linux}
mkdir -p "$out/packages" "$out/tree"
cd "$out"

# fetch NAME: download a Debian package unless it is there, and unpack it
fetch() {
  compgen -G "packages/$1_*.deb" >/dev/null || (cd packages && apt-get download -q -o APT::Sandbox::User=root "$1" >/dev/null)
  dpkg -x packages/"$1"_*.deb tree
}

if ! [ -s vmlinuz ] || ! [ -s initramfs.cpio ] || [ "$here/init" -nt initramfs.cpio ]; then
  apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get update -q >/dev/null
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -1)
  fetch "$kernel"
  fetch busybox-static
  cp tree/boot/vmlinuz-* vmlinuz
  rm -rf root && mkdir -p root/{bin,dev,proc,sys}
  cp tree/bin/busybox root/bin/
  install -m 755 "$here/init" root/init
  find root -exec touch -h -d @0 {} +
  (cd root && find . | LC_ALL=C sort | cpio --quiet -o -H newc --owner 0:0 --reproducible) >initramfs.cpio
  rm -rf tree root
fi
