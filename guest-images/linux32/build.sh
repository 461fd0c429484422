#!/usr/bin/env bash
# Linux of 32 bits: Debian's i386 kernels with PAE and without, and the initramfs of guest-images/linux with busybox of i386.
# Leaves vmlinuz-686, vmlinuz-686-pae and initramfs.cpio in build/guests/linux32 (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=${1:-$here/../../build/guests/linux32}
mkdir -p "$out/packages"
cd "$out"

[ -s initramfs.cpio ] && ! [ "$here/../linux/init" -nt initramfs.cpio ] && exit
rm -rf tree tree-* # of a build that was interrupted
i386_lists "$PWD/packages" bookworm
fetch_package packages busybox-static tree "${apt_options[@]}"
for kind in 686 686-pae; do
  fetch_package packages "$(kernel_package "linux-image-$kind" "${apt_options[@]}")" "tree-$kind" "${apt_options[@]}"
  cp "tree-$kind"/boot/vmlinuz-* "vmlinuz-$kind"
  rm -rf "tree-$kind"
done
guest_initramfs tree initramfs.cpio
rm -rf tree
