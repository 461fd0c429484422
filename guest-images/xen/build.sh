#!/usr/bin/env bash
# The Xen hypervisor from its Debian package, as a multiboot2 guest: leaves xen.gz in build/guests/xen (or in the directory given).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
fetch_guest "${1:-$root/build/guests/xen}" xen-hypervisor-4.17-amd64 'boot/xen-*-amd64.gz' xen.gz
