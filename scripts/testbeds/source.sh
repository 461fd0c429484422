# Sourced by the builds of emulators.

# fetch_source DIRECTORY SUITE PACKAGE: Debian's source package, from the mirror that apt uses, signatures checked by apt.
# A mirror may lack the .dsc: look at what has come.
fetch_source() {
  local out=$1 mirror apt
  mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -m1 '/debian/*$' || true)
  [ -n "$mirror" ] || mirror=$(sed -n 's/^deb *\(\[.*\]\)* *\([^ ]*\/debian\/*\) .*/\2/p' /etc/apt/sources.list | head -1)
  mkdir -p "$out/lists/partial"
  printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$mirror" "$2" /usr/share/keyrings/debian-archive-keyring.gpg >"$out/source.sources"
  apt="apt-get -q -o Dir::Etc::SourceList=$out/source.sources -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$out/lists"
  $apt update >"$out/apt.log" 2>&1 || { tail -5 "$out/apt.log" >&2; return 4; }
  (cd "$out" && $apt -o APT::Sandbox::User=root source --download-only "$3" >>"$out/apt.log" 2>&1) || true
}
