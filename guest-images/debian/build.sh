#!/usr/bin/env bash
# A Debian as debootstrap makes it, with its full kernel, gcc, the sources of Lua and an ssh server, on an ext4 file system that is a
# whole disk. Leaves disk.img, vmlinuz, initrd.img, and the key of root's ssh, in build/guests/debian (or in the directory given).
#   build.sh [DIRECTORY [SIZE PACKAGES FILL]]   another disk: PACKAGES (,name,name) are on it as well, and what `FILL TREE` puts there
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=${1:-$root/build/guests/debian} size=${2:-2G} packages=${3:-} fill=${4:-}
suite=bookworm
mkdir -p "$out"
cd "$out"
if [ -s disk.img ] && [ -z "$(find "$here" ${fill:+"$(dirname "$fill")"} -type f -newer disk.img)" ]; then exit; fi

need debootstrap debootstrap
need mke2fs e2fsprogs
need ssh-keygen openssh-client
if ! [ base.tar -nt "$here/build.sh" ] || [ "$(cat base.packages 2>/dev/null)" != "$packages" ]; then
  rm -rf tree
  say "debootstrap: some minutes"
  debootstrap --variant=minbase --include=linux-image-amd64,systemd-sysv,dbus,gcc,libc6-dev,make,openssh-server$packages "$suite" tree "$(debian_mirror)" >debootstrap.log 2>&1 \
    || { tail -3 debootstrap.log >&2; exit 4; }
  tar -C tree --one-file-system -cf base.tar .
  echo "$packages" >base.packages
  rm -rf tree
fi
compgen -G "lua5.4_*.orig.tar.gz" >/dev/null || fetch_source "$out" "$suite" lua5.4 "lua5.4_*.orig.tar.gz"
rm -rf tree && mkdir tree
tar -C tree -xf base.tar
mkdir -p tree/root/lua
tar -C tree/root/lua --strip-components=1 -xf lua5.4_*.orig.tar.gz
rm -f key key.pub
ssh-keygen -q -t ed25519 -N "" -C dwcvmm -f key
"$here/customise" tree
[ -z "$fill" ] || "$fill" tree
mkdir -p -m 700 tree/root/.ssh
cp key.pub tree/root/.ssh/authorized_keys
cp tree/boot/vmlinuz-* vmlinuz
cp tree/boot/initrd.img-* initrd.img
truncate -s "$size" new.img
mke2fs -q -t ext4 -d tree -L debian -E root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0 -U d3c5e7a0-0000-4000-8000-000000000001 new.img
mv new.img disk.img
rm -rf tree
