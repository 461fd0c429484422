#!/usr/bin/env bash
# The Linux guest: Debian's cloud kernel and an initramfs of busybox and one script.
# Leaves vmlinuz and initramfs.cpio in build/guests/linux (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=${1:-$here/../../build/guests/linux}
mkdir -p "$out/packages"
cd "$out"

if ! [ -s vmlinuz ] || ! [ -s initramfs.cpio ] || [ "$here/init" -nt initramfs.cpio ]; then
  rm -rf tree && mkdir tree # of a build that was interrupted
  fetch_package packages "$(kernel_package linux-image-cloud-amd64)" tree
  fetch_package packages busybox-static tree
  cp tree/boot/vmlinuz-* vmlinuz
  guest_initramfs tree initramfs.cpio
  rm -rf tree
fi
