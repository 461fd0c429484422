#!/usr/bin/env bash
# Linux with a network device: Debian's full kernel, and an initramfs of busybox, the driver's modules and one script.
# Leaves vmlinuz and initramfs.cpio in build/guests/net (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
. "$root/scripts/testbeds/kernel.sh"
guest_with_modules "$here" "${1:-$root/build/guests/net}" virtio_pci virtio_net
