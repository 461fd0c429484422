#!/usr/bin/env bash
# A disk with GRUB from its Debian package: a menu on the BIOS' console, and behind it two kernels: the guest `grub`
# of this project, and memtest86+. Leaves disk.img in build/guests/grub (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=${1:-$root/build/guests/grub}
mkdir -p "$out/packages"
"$here/../build.sh" "$out/.."
"$here/../fetch.sh" memtest "$out"
cd "$out"
need /usr/share/seabios/bios.bin seabios
if [ -s disk.img ] && [ disk.img -nt "$here/build.sh" ] && [ disk.img -nt "$here/grub.cfg" ] && [ disk.img -nt ../grub.bin ]; then exit; fi

need grub-mkimage grub-common
rm -rf tree memdisk
fetch_package packages grub-pc-bin tree
mkdir -p memdisk/boot/grub
cp "$here/grub.cfg" memdisk/boot/grub/
echo "words of the module" >memdisk/boot/grub/words
cp ../grub.bin memtest.bin memdisk/boot/
tar -C memdisk -cf memdisk.tar boot
grub-mkimage -O i386-pc -d tree/usr/lib/grub/i386-pc -o core.img -m memdisk.tar -p '(memdisk)/boot/grub' \
  memdisk tar normal echo linux multiboot2 reboot
cat tree/usr/lib/grub/i386-pc/boot.img core.img >new.img # boot.img loads what begins at the second sector
truncate -s 1M new.img
mv new.img disk.img
rm -rf tree memdisk memdisk.tar core.img
