#!/bin/sh
# QEMU locks images so that one process writes (docs: "image locking"). Two qemu-nbd may all the same serve one raw image
# for writing, and both write; with qcow2 the second is refused. qemu-img info looks at a raw image beside a writer,
# qemu-img convert does not.
# Why: a writer is kept out by whoever does not share "write" (a lock on byte 201, block/file-posix.c). For the metadata
# of qcow2 that is so; qemu-nbd shares it for a raw image, so only "resize" (byte 203) is refused to others.
# Seen with qemu-utils 7.2 of Debian 12. Exit code 0: still so, 1: it changed, 2: could not be tried.
set -u
version=1:7.2+dfsg-7+deb12u18+b3
[ "$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null)" = "$version" ] || apt-get install -y -q "qemu-utils=$version" >&2 || exit 2
folder=$(mktemp -d)
cd "$folder" || exit 2
first='' second=''
trap 'kill $first $second 2>/dev/null; rm -rf "$folder"' EXIT
qemu-nbd --version | head -1

# serve FORMAT SOCKET: in the background; $! is its process
serve() { qemu-nbd --persistent --format="$1" --socket="$folder/$2" "disk.$1" & }
# wait_for SOCKET PROCESS: until it answers; fails if the process ends before
wait_for() {
  tries=0
  until qemu-io -r -f raw -c 'read 0 512' "nbd:unix:$folder/$1" >/dev/null 2>&1; do
    kill -0 "$2" 2>/dev/null && [ $((tries += 1)) -lt 100 ] || return 1
    sleep 0.1
  done
}
seen=''
for format in raw qcow2; do
  qemu-img create -q -f "$format" "disk.$format" 1M || exit 2
  serve "$format" one
  first=$!
  wait_for one "$first" || exit 2
  serve "$format" two
  second=$!
  if wait_for two "$second"; then
    qemu-io -f raw -c 'write -P 1 0 512' "nbd:unix:$folder/one" >/dev/null && qemu-io -f raw -c 'write -P 2 0 512' "nbd:unix:$folder/two" >/dev/null \
      && result='two writers' || result='two readers'
  else
    result='second refused'
  fi
  qemu-img info "disk.$format" >/dev/null 2>&1 && result="$result, info works" || result="$result, info refused"
  qemu-img convert -f "$format" -O raw "disk.$format" copy 2>/dev/null && result="$result, convert works" || result="$result, convert refused"
  echo "$format: $result"
  seen="$seen$format: $result;"
  kill "$first" "$second" 2>/dev/null
  wait
done
[ "$seen" = 'raw: two writers, info works, convert refused;qcow2: second refused, info refused, convert refused;' ]
