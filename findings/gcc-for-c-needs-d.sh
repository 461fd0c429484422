#!/bin/sh
# A GCC that is configured for C alone cannot be built without the sources of its compiler of D: genhooks, which writes a header for all languages,
# depends on d/d-target.def. configure does not notice that the directory is missing (nor that of C++), so a source tree that was cut
# down to what --enable-languages names, for the disk of a guest, fails after minutes of make.
# Seen with gcc-12-source 12.2.0-14+deb12u1 of Debian 12. Exit code 0: still so, 1: it changed, 2: could not be tried.
set -u
version=12.2.0-14+deb12u1
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
for what in make gcc g++ libgmp-dev libmpfr-dev libmpc-dev; do
  dpkg -s "$what" >/dev/null 2>&1 || apt-get install -y -q --no-install-recommends "$what" >&2 || exit 2
done
apt-get download -q -o APT::Sandbox::User=root "gcc-12-source=$version" >&2 || exit 2
dpkg -x gcc-12-source_*.deb . || exit 2
# without D, and without what is large and no part of the compiler
tar -xf usr/src/gcc-12/gcc-12*.tar.xz --anchored --exclude='gcc-12.2.0/gcc/testsuite' --exclude='gcc-12.2.0/gcc/po' --exclude='gcc-12.2.0/lib[gops]*' --exclude='gcc-12.2.0/gcc/d' --exclude='gcc-12.2.0/libstdc++-v3' || exit 2
mkdir build
cd build || exit 2
../gcc-12.2.0/configure --enable-languages=c --disable-bootstrap --disable-multilib --disable-nls --disable-lto --disable-plugin --without-isl CFLAGS=-O0 CXXFLAGS=-O0 >top.log 2>&1
echo "configure for C alone: exit code $?"
make all-build-libiberty all-build-libcpp configure-gcc >configured.log 2>&1 || { tail -3 configured.log; exit 2; }
echo "configure of its directory gcc: exit code 0"
make -C gcc build/genhooks.o >made.log 2>&1
code=$?
grep -a 'No rule' made.log
[ "$code" -ne 0 ] && grep -q 'd/d-target.def' made.log
