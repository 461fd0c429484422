#!/usr/bin/env bash
# The Xen hypervisor from its Debian package, as a multiboot2 guest: leaves xen.gz in build/guests/xen (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=${1:-$here/../../build/guests/xen}
mkdir -p "$out/packages"
cd "$out"

if ! [ -s xen.gz ]; then
  fetch_package packages xen-hypervisor-4.17-amd64 tree
  cp tree/boot/xen-*-amd64.gz xen.gz
  rm -rf tree
fi
