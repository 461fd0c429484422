#!/bin/sh
# `dask worker --host 127.0.0.1` (distributed 2026.8.0) keeps to loopback with what it computes, but its HTTP server listens on all
# addresses of the machine; with --no-dashboard it still does. Only --dashboard-address 127.0.0.1:0 keeps it to loopback.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs python3-venv and unshare(1), which makes a network with
# loopback alone, so that nothing is open to others meanwhile.
set -u
if [ "${1:-}" != inside ]; then
  folder=$(mktemp -d) || exit 2
  trap 'rm -rf "$folder"' EXIT
  python3 -m venv "$folder/venv" || exit 2
  "$folder/venv/bin/pip" install -q --disable-pip-version-check distributed==2026.8.0 dask==2026.8.0 bokeh==3.9.2 || exit 2
  unshare --map-root-user --net "$0" inside "$folder"
  exit
fi
cd "$2" || exit 2
ip link set lo up || exit 2
export HOME="$2" DASK_DISTRIBUTED__VERSION_CHECK=ignore
listens() { # OPTION ...: addresses on which a worker with these options listens
  venv/bin/dask scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file s.json 2>scheduler.log &
  scheduler=$!
  tries=0
  until grep -q '^}' s.json 2>/dev/null; do
    sleep 0.2
    tries=$((tries + 1))
    [ $tries -lt 200 ] || exit 2
  done
  venv/bin/dask worker --scheduler-file s.json --host 127.0.0.1 --no-nanny --nthreads 1 "$@" 2>worker.log &
  worker=$!
  until grep -q 'Registered to' worker.log 2>/dev/null; do
    sleep 0.2
    tries=$((tries + 1))
    [ $tries -lt 400 ] || exit 2
  done
  venv/bin/python - $worker <<'PYTHON'
import os, socket, sys
inodes = set()
for fd in os.scandir(f"/proc/{sys.argv[1]}/fd"):
    target = os.readlink(fd.path)
    if target.startswith("socket:["):
        inodes.add(target[8:-1])
found = set()
for line in open("/proc/net/tcp").read().splitlines()[1:]:
    words = line.split()
    if words[3] == "0A" and words[9] in inodes:  # LISTEN
        found.add(socket.inet_ntoa(int(words[1].split(":")[0], 16).to_bytes(4, "little")))
print(*sorted(found))
PYTHON
  kill $worker $scheduler
  wait
  rm -f s.json worker.log
}
usual=$(listens) || exit 2
without=$(listens --no-dashboard) || exit 2
bound=$(listens --dashboard-address 127.0.0.1:0) || exit 2
echo "distributed 2026.8.0: dask worker --host 127.0.0.1 listens on $usual; with --no-dashboard on $without;" \
  "with --dashboard-address 127.0.0.1:0 on $bound"
[ -n "$usual" ] && [ -n "$without" ] && [ -n "$bound" ] || exit 2
[ "$usual" = "0.0.0.0 127.0.0.1" ] && [ "$without" = "$usual" ] && [ "$bound" = 127.0.0.1 ] && exit 0
exit 1
