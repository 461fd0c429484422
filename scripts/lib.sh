# What the scripts share: install what is missing, say what is done. Sourced, not run.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '\033[1m>\033[0m %s\n' "$*" >&2; }
[ -z "${NO_COLOR:-}" ] && [ -t 2 ] || say() { printf '> %s\n' "$*" >&2; }

# in_turn COMMAND ...: tests prepare guests and testbeds side by side, and apt's own locks do not wait for each other's lists
in_turn() { (flock 9 && "$@") 9>"$root/build/apt.lock"; }
install_packages() { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o DPkg::Lock::Timeout=600 --no-install-recommends "$@"; }

# need COMMAND PACKAGE ...: install Debian packages unless the command (or file) is there
need() {
  local what=$1
  shift
  if command -v "$what" >/dev/null 2>&1 || [ -e "$what" ]; then return; fi
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "installing $*"
    in_turn install_packages "$@" >"$root/build/apt.log" 2>&1 || { tail -5 "$root/build/apt.log" >&2; exit 4; }
  else
    echo "$what is missing: install $* (Debian package names)" >&2
    exit 4
  fi
}

# fetch_package DIRECTORY NAME TREE [OPTION OF APT ...]: download a Debian package unless it is there, and unpack it
fetch_package() {
  local out=$1 name=$2 tree=$3
  shift 3
  compgen -G "$out/${name}_*.deb" >/dev/null || (cd "$out" && in_turn apt-get download -q -o APT::Sandbox::User=root "$@" "$name" >/dev/null)
  dpkg -x "$out/$name"_*.deb "$tree"
}

# debian_mirror: the address of the archive that apt uses
debian_mirror() {
  apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -m1 '/debian/*$' || { echo "apt knows no archive of Debian" >&2; return 4; }
}

# own_lists DIRECTORY SUITE deb|deb-src: sets $apt_options: what apt knows is Debian's archive alone, and kept in DIRECTORY
own_lists() {
  local out=$1 mirror
  mirror=$(debian_mirror)
  mkdir -p "$out/lists/partial"
  printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$3" "$mirror" "$2" /usr/share/keyrings/debian-archive-keyring.gpg >"$out/source.sources"
  apt_options=(-o "Dir::Etc::SourceList=$out/source.sources" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$out/lists"
    -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=root)
}

# suite_lists DIRECTORY SUITE: the same, brought up to date: for packages of another suite than the machine's own
suite_lists() {
  own_lists "$1" "$2" deb
  apt-get -q "${apt_options[@]}" update >"$1/apt.log" 2>&1 || { tail -5 "$1/apt.log" >&2; return 4; }
}

# i386_lists DIRECTORY SUITE: the same for packages of i386: the machine's dpkg goes on knowing its own architecture only
i386_lists() {
  own_lists "$1" "$2" deb
  apt_options+=(-o APT::Architecture=i386 -o APT::Architectures=i386 -o Dir::State::status=/dev/null)
  apt-get -q "${apt_options[@]}" update >"$1/apt.log" 2>&1 || { tail -5 "$1/apt.log" >&2; return 4; }
}

# fetch_source DIRECTORY SUITE PACKAGE FILE: one file (a pattern) of a source package of Debian, signatures checked by apt. A mirror may
# lack others, such as the .dsc, without which apt ends in an error.
fetch_source() {
  local out=$1 apt_options
  own_lists "$out" "$2" deb-src
  (cd "$out" && { apt-get -q "${apt_options[@]}" update && apt-get -q "${apt_options[@]}" source --download-only "$3"; } >"$out/apt.log" 2>&1) || true
  compgen -G "$out/$4" >/dev/null || { tail -5 "$out/apt.log" >&2; return 4; }
}

# kernel_package NAME [OPTION OF APT ...]: the package that a meta package like linux-image-amd64 stands for
kernel_package() {
  local name=$1
  shift
  apt-cache "$@" show "$name" >/dev/null 2>&1 || in_turn apt-get "$@" update -q >/dev/null
  apt-cache "$@" depends "$name" | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -1
}

# guest_initramfs TREE FILE: busybox of an unpacked package, and guest-images/linux/init; the same bytes at each build
guest_initramfs() {
  local top
  need cpio cpio
  top=$(mktemp -d)
  chmod 755 "$top"
  mkdir -p "$top"/{bin,dev,proc,sys}
  cp "$1/bin/busybox" "$top/bin/"
  install -m 755 "$root/guest-images/linux/init" "$top/init"
  find "$top" -exec touch -h -d @0 {} +
  (cd "$top" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --owner 0:0 --reproducible) >"$2"
  rm -rf "$top"
}

# for_minutes MINUTES FILE COMMAND ...: run a command, to which the file says that its time is up. The clock of a testbed in which it runs
# is another one.
for_minutes() {
  local minutes=$1 file=$2 code=0
  shift 2
  rm -f "$file"
  # a shell that is ended leaves its sleep, which would keep the output open
  (sleep $((minutes * 60)) & trap "kill $!" TERM; wait $! && touch "$file") >/dev/null 2>&1 & timer=$!
  trap 'kill $timer 2>/dev/null || true' EXIT
  "$@" || code=$?
  kill $timer 2>/dev/null || true
  return $code
}

# booted_debian OUT: OUT/saved and OUT/saved.img are a Debian with workloads that was booted under off in testbed amd. Others go on from
# there under any strategy.
booted_debian() {
  "$root/guest-images/workloads/build.sh"
  [ "$1/saved/machine.json" -nt "$root/build/guests/workloads/disk.img" ] && return
  say "booted under off, and saved"
  mkdir -p "$1"
  cp --sparse=always "$root/build/guests/workloads/disk.img" "$1/saved.img"
  "$root/scripts/testbed" amd --timeout 3000 -- .venv/bin/python scripts/debian-boot "$1"
}

# prepare_python EXTRA: a virtual environment with dwcvmm in it, rebuilt only when its inputs changed.
prepare_python() {
  local extras=$1 python="" stamp candidate
  mkdir -p "$root/build"
  need gcc gcc libc6-dev
  need /usr/include/linux/kvm.h linux-libc-dev
  for candidate in python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
  if [ -z "$python" ]; then
    need /nonexistent python3 python3-venv python3-dev
    python=python3
  fi
  need "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" python3-dev
  stamp=$(cd "$root" && find pyproject.toml setup.py dwcvmm/version.py cbits -type f ! -name "_core.*" -exec cat {} + | sha256sum | cut -d' ' -f1)-$extras
  if [[ $(cat "$root/.venv/dwcvmm-stamp" 2>/dev/null) != "$stamp"* ]]; then
    say "building the virtual environment .venv"
    [ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
    "$root/.venv/bin/pip" install -q --disable-pip-version-check -e "$root${extras:+[$extras]}" >"$root/build/pip.log" 2>&1 \
      || { tail -20 "$root/build/pip.log" >&2; exit 4; }
    echo "$stamp" >"$root/.venv/dwcvmm-stamp"
  fi
  # A testbed has the tree read-only, or a copy of it: Python would compile all of it there at each start. Nor does it keep
  # anything where PYTHONDONTWRITEBYTECODE is set.
  "$root/.venv/bin/python" -m compileall -q "$root/dwcvmm" >/dev/null || true
}

# python_programs EXTRA: put the programs of the virtual environment on the PATH. Tests name theirs by DWCVMM_TESTS_PYTHON:
# to prepare it anew would replace the core while other tests use it.
python_programs() {
  [ -n "${DWCVMM_TESTS_PYTHON:-}" ] || prepare_python "$1"
  PATH="$(dirname "${DWCVMM_TESTS_PYTHON:-$root/.venv/bin/python}"):$PATH"
}
