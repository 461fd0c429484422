#!/usr/bin/env bash
# Assemble the tiny guests that are not up to date: build.sh [OUT], by default build/guests.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../build/guests}
mkdir -p "$out"
for source in "$here"/*/*.asm; do
  image=$out/$(basename "$source" .asm).bin
  # made in the same second is not older: archives keep no more
  fresh=1
  for part in "$source" "$here"/*.inc; do
    [ -s "$image" ] && ! [ "$part" -nt "$image" ] || fresh=
  done
  [ -n "$fresh" ] && continue
  if ! command -v nasm >/dev/null; then
    [ "$(id -u)" = 0 ] || { echo "nasm is missing: install the package nasm" >&2; exit 4; }
    apt-get install -y -q -o DPkg::Lock::Timeout=600 --no-install-recommends nasm >/dev/null
  fi
  nasm -f bin -I "$here/" -o "$image.$$" "$source"
  mv "$image.$$" "$image" # whole, whoever else looks for it or makes it
done
