#!/usr/bin/env bash
# GRUB with a menu on the serial port, and behind it two kernels: the guest `grub` of this project, and memtest86+. Twice, in
# build/guests/grub (or in the directory given): disk.img for a BIOS, from the package grub-pc-bin, and grub.elf, a multiboot
# kernel, from the same source package, since Debian has none built.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=${1:-$root/build/guests/grub}
mkdir -p "$out/packages"
"$here/../build.sh" "$out/.."
"$here/../fetch.sh" memtest "$out"
cd "$out"
need /usr/share/seabios/bios.bin seabios
if [ -s disk.img ] && [ -s grub.elf ] && [ disk.img -nt "$here/build.sh" ] && [ disk.img -nt "$here/grub.cfg" ] && [ disk.img -nt ../grub.bin ]; then
  exit
fi

need grub-mkimage grub-common
rm -rf tree memdisk
fetch_package packages grub-pc-bin tree
multiboot=packages/i386-multiboot # its modules; kept, as what follows changes more often
if ! [ -s $multiboot/moddep.lst ]; then
  need gcc gcc libc6-dev
  need make make
  need bison bison
  need flex flex
  need xz xz-utils
  say "building GRUB for multiboot (a minute)"
  fetch_source "$PWD/packages" bookworm grub2 "grub2_*.orig.tar.xz"
  rm -rf source && mkdir source
  tar -C source --strip-components=1 -xf packages/grub2_*.orig.tar.xz
  (cd source && ./configure --target=i386 --with-platform=multiboot --disable-werror --disable-nls --disable-grub-mkfont \
    --disable-grub-mount --disable-device-mapper --disable-liblzma --disable-libzfs && make -j"$(nproc)" -C grub-core) \
    >build.log 2>&1 || { tail -5 build.log >&2; exit 4; }
  mkdir -p $multiboot
  cp source/grub-core/*.{mod,img,lst} $multiboot/
  rm -rf source
fi

mkdir -p memdisk/boot/grub
cp "$here/grub.cfg" memdisk/boot/grub/
echo "words of the module" >memdisk/boot/grub/words
cp ../grub.bin memtest.bin memdisk/boot/
tar -C memdisk -cf memdisk.tar boot
# image FORMAT MODULES FILE
image() {
  grub-mkimage -O "$1" -d "$2" -o "$3" -m memdisk.tar -p '(memdisk)/boot/grub' \
    memdisk tar normal test echo serial terminal linux multiboot2 reboot
}
image i386-multiboot $multiboot grub.elf
image i386-pc tree/usr/lib/grub/i386-pc core.img
cat tree/usr/lib/grub/i386-pc/boot.img core.img >new.img # boot.img loads what begins at the second sector
truncate -s 1M new.img
mv new.img disk.img
rm -rf tree memdisk memdisk.tar core.img
