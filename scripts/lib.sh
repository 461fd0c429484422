# What the scripts share: install what is missing, say what is done. Sourced, not run.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '\033[1m>\033[0m %s\n' "$*" >&2; }
[ -z "${NO_COLOR:-}" ] && [ -t 2 ] || say() { printf '> %s\n' "$*" >&2; }

# need COMMAND PACKAGE ...: install Debian packages unless the command (or file) is there
need() {
  local what=$1
  shift
  if command -v "$what" >/dev/null 2>&1 || [ -e "$what" ]; then return; fi
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "installing $*"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o DPkg::Lock::Timeout=600 --no-install-recommends "$@"; } \
      >"$root/build/apt.log" 2>&1 || { tail -5 "$root/build/apt.log" >&2; exit 4; }
  else
    echo "$what is missing: install $* (Debian package names)" >&2
    exit 4
  fi
}

# fetch_package DIRECTORY NAME TREE: download a Debian package unless it is there, and unpack it
fetch_package() {
  compgen -G "$1/$2_*.deb" >/dev/null || (cd "$1" && apt-get download -q -o APT::Sandbox::User=root "$2" >/dev/null)
  dpkg -x "$1/$2"_*.deb "$3"
}

# debian_mirror: the address of the archive that apt uses
debian_mirror() {
  apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -m1 '/debian/*$' || { echo "apt knows no archive of Debian" >&2; return 4; }
}

# fetch_source DIRECTORY SUITE PACKAGE FILE: one file (a pattern) of a source package of Debian, signatures checked by apt. A mirror may
# lack others, such as the .dsc, without which apt ends in an error.
fetch_source() {
  local out=$1 mirror apt
  mirror=$(debian_mirror)
  mkdir -p "$out/lists/partial"
  printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$mirror" "$2" /usr/share/keyrings/debian-archive-keyring.gpg >"$out/source.sources"
  apt="apt-get -q -o Dir::Etc::SourceList=$out/source.sources -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$out/lists"
  apt="$apt -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=root"
  (cd "$out" && { $apt update && $apt source --download-only "$3"; } >"$out/apt.log" 2>&1) || true
  compgen -G "$out/$4" >/dev/null || { tail -5 "$out/apt.log" >&2; return 4; }
}

# kernel_package NAME: the package that a meta package like linux-image-amd64 stands for
kernel_package() {
  apt-cache show "$1" >/dev/null 2>&1 || apt-get update -q >/dev/null
  apt-cache depends "$1" | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -1
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
  stamp=$(cd "$root" && cat pyproject.toml setup.py cbits/* 2>/dev/null | sha256sum | cut -d' ' -f1)-$extras
  case $(cat "$root/.venv/dwcvmm-stamp" 2>/dev/null) in "$stamp"*) return ;; esac
  say "building the virtual environment .venv"
  [ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
  "$root/.venv/bin/pip" install -q --disable-pip-version-check -e "$root${extras:+[$extras]}" >"$root/build/pip.log" 2>&1 \
    || { tail -20 "$root/build/pip.log" >&2; exit 4; }
  echo "$stamp" >"$root/.venv/dwcvmm-stamp"
}
