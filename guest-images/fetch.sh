#!/usr/bin/env bash
# Guests that are one file of a Debian package: fetch.sh NAME [DIRECTORY], by default into build/guests/NAME. Nothing is done where it is there.
#   xen      xen.gz, the hypervisor: multiboot 2
#   gnumach  gnumach.gz, the microkernel of the Hurd: multiboot 1
#   memtest  memtest.bin, memtest86+: Linux boot protocol
#   ipxe     ipxe.iso, a hybrid ISO image: a BIOS, ISOLINUX and iPXE
set -eu
. "$(dirname "$0")/../scripts/lib.sh"
case ${1:-} in
  xen) package=xen-hypervisor-4.17-amd64 pattern='boot/xen-*-amd64.gz' file=xen.gz ;;
  gnumach) package=gnumach-image-1.8-486 pattern='boot/gnumach-*.gz' file=gnumach.gz ;;
  memtest) package=memtest86+ pattern=boot/memtest86+x64.bin file=memtest.bin ;;
  ipxe) package=ipxe pattern=usr/lib/ipxe/ipxe.iso file=ipxe.iso ;;
  *) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
esac
out=${2:-$root/build/guests/$1}
if [ -s "$out/$file" ]; then exit; fi
mkdir -p "$out/packages"
fetch_package "$out/packages" "$package" "$out/tree"
# shellcheck disable=SC2086 # a pattern
cp "$out/tree"/$pattern "$out/$file"
rm -rf "$out/tree"
