#!/usr/bin/env bash
# Guests that are one file of a Debian package: fetch.sh NAME [DIRECTORY], by default into build/guests/NAME. Nothing is done where it is there.
#   xen      xen.gz, the hypervisor: multiboot 2
#   gnumach  gnumach.gz, the microkernel of the Hurd: multiboot 1
#   memtest  memtest.bin, memtest86+: Linux boot protocol
#   ipxe     ipxe.iso, a hybrid ISO image: a BIOS, ISOLINUX and iPXE
#   gnumach-i386, memtest-ia32: the same files for 32 bits
#   full, rt, cloud, backports, trixie: vmlinuz, a kernel of Debian 12, of its backports, of Debian 13 (cloud kernels, the last two)
#   installer: vmlinuz and initrd.gz of Debian's installer by network
set -eu
. "$(dirname "$0")/../scripts/lib.sh"
name=${1:-} suite= i386= more=
case $name in
  xen) package=xen-hypervisor-4.17-amd64 pattern='boot/xen-*-amd64.gz' file=xen.gz ;;
  gnumach) package=gnumach-image-1.8-486 pattern='boot/gnumach-*.gz' file=gnumach.gz ;;
  memtest) package=memtest86+ pattern=boot/memtest86+x64.bin file=memtest.bin ;;
  ipxe) package=ipxe pattern=usr/lib/ipxe/ipxe.iso file=ipxe.iso ;;
  gnumach-i386) package=gnumach-image-1.8-486 pattern='boot/gnumach-*.gz' file=gnumach.gz i386=bookworm ;;
  memtest-ia32) package=memtest86+ pattern=boot/memtest86+ia32.bin file=memtest.bin ;;
  full) package=linux-image-amd64 ;;
  rt | cloud) package=linux-image-$name-amd64 ;;
  backports) package=linux-image-cloud-amd64 suite=bookworm-backports ;;
  trixie) package=linux-image-cloud-amd64 suite=trixie ;;
  installer)
    package=debian-installer-12-netboot-amd64 file=vmlinuz more=initrd.gz
    pattern=usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux
    ;;
  *) sed -n '2,9s/^# //p' "$0" >&2; exit 2 ;;
esac
out=${2:-$root/build/guests/$name}
if [ -s "$out/${file:=vmlinuz}" ]; then exit; fi
mkdir -p "$out/packages"
apt_options=()
[ -z "$suite" ] || suite_lists "$out/packages" "$suite"
[ -z "$i386" ] || i386_lists "$out/packages" "$i386"
case $package in
  linux-image-*)
    package=$(kernel_package "$package" "${apt_options[@]}")
    pattern='boot/vmlinuz-*'
    ;;
esac
fetch_package "$out/packages" "$package" "$out/tree" "${apt_options[@]}"
# shellcheck disable=SC2086 # a pattern
for more in $more; do cp "$out/tree/${pattern%/*}/$more" "$out/"; done
# shellcheck disable=SC2086 # a pattern
cp "$out/tree"/$pattern "$out/$file"
rm -rf "$out/tree"
