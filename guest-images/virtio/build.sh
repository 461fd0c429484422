#!/usr/bin/env bash
# Linux with drivers of the virtio devices and of the power button: Debian's full kernel, and an initramfs of busybox, their
# modules and one script.
# Leaves vmlinuz, initramfs.cpio and disk.img (empty) in build/guests/virtio (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
. "$root/scripts/testbeds/kernel.sh"
out=${1:-$root/build/guests/virtio}
guest_with_modules "$here" "$out" virtio_pci virtio_blk virtio_console virtio-rng button evdev
truncate -s 16M "$out/disk.img"
