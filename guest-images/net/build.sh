#!/usr/bin/env bash
# Linux with a network device: Debian's full kernel, and an initramfs of busybox, the driver's modules and one script.
# Leaves vmlinuz and initramfs.cpio in build/guests/net (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
. "$root/scripts/testbeds/kernel.sh"
out=${1:-$root/build/guests/net}
mkdir -p "$out/packages"
cd "$out"
[ -s initramfs.cpio ] && ! [ "$here/init" -nt initramfs.cpio ] && exit
need depmod kmod
cache=$out/packages # of what kernel.sh downloads
rm -rf tree
unpack_kernel tree
cp tree/boot/vmlinuz-* vmlinuz
make_initramfs tree "$here/init" initramfs.cpio virtio_pci virtio_net
rm -rf tree
