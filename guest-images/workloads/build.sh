#!/usr/bin/env bash
# The Debian of guest-images/debian with what long workloads need: the sources of Linux (configured: kernel.config) and of GCC, what compiles
# them, and benchmarks (the file of that name). Leaves its files in build/guests/workloads.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
out=$root/build/guests/workloads
mkdir -p "$out"
compilers=,flex,bison,bc,libelf-dev,g++,libgmp-dev,libmpfr-dev,libmpc-dev
benchmarks=,sysbench,stress-ng,p7zip-full,zstd,fio,perl,python3-minimal,openssl,linux-perf
exec "$here/../debian/build.sh" "$out" 5G "$compilers$benchmarks" "$here/fill"
