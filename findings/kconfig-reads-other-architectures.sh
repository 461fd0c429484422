#!/bin/sh
# Sources of Linux cannot be cut down to one architecture by leaving the other directories of arch/ away: a configuration for x86 reads Kconfig
# files of some of them. `source` is done while the file is parsed, and an `if ARM` around it only makes what is in there depend on ARM.
# Leaving away their .c, .h and .S files is enough to save the room. The top Kconfig itself names only arch/$(SRCARCH).
# Seen with Linux 6.1.192-3 of Debian 12. Exit code 0: still so, 1: it changed, 2: could not be tried.
set -u
version=6.1.192-3
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
for what in flex bison make gcc; do
  command -v "$what" >/dev/null || apt-get install -y -q --no-install-recommends "$what" >&2 || exit 2
done
apt-get download -q -o APT::Sandbox::User=root "linux-source-6.1=$version" >&2 || exit 2
dpkg -x linux-source-6.1_*.deb . || exit 2
tar -xf usr/src/linux-source-6.1.tar.xz --exclude='*.c' --exclude='*.h' --exclude='*.S' --exclude='*/Documentation/*/*' || exit 2
# what configures is made of these
tar -xf usr/src/linux-source-6.1.tar.xz linux-source-6.1/scripts || exit 2
cd linux-source-6.1 || exit 2
make ARCH=x86_64 tinyconfig >with 2>&1 || { tail -3 with; exit 2; }
echo "with Kconfig of all: $(grep -c '=y$' .config) options are on"
mkdir away && cp -r arch away/ && find arch -mindepth 1 -maxdepth 1 ! -name x86 ! -name Kconfig -exec rm -r {} + || exit 2
missing=''
while ! make ARCH=x86_64 tinyconfig >without 2>&1; do
  file=$(sed -n "s/.*can't open file \"\(.*\)\".*/\1/p" without)
  echo "${file:-$(tail -1 without)}"
  case $file in arch/*) ;; *) exit 1 ;; esac
  [ -e "away/$file" ] || exit 1
  missing="$missing $file"
  mkdir -p "$(dirname "$file")" && cp "away/$file" "$file" || exit 2
done
[ -n "$missing" ]
