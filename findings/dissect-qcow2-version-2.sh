#!/bin/sh
# dissect.hypervisor takes the fields that only qcow2 version 3 has (features, header_length) from the header of version 2, too. That ends at
# byte 72, and header extensions follow: an image of version 2 with a backing file and its format (qemu-img create -o compat=0.10 -F) shows
# the name of the extension as feature bits, and is not opened, or with features that it does not have. The same in version 3 is read.
# Way round: give the library a header of version 3 made of the fields of version 2.
# Seen with dissect.hypervisor 3.21. Exit code 0: still so, 1: it changed, 2: could not be tried.
set -u
version=1:7.2+dfsg-7+deb12u18+b3
[ "$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null)" = "$version" ] || apt-get install -y -q "qemu-utils=$version" >&2 || exit 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check dissect.hypervisor==3.21 dissect.cstruct==4.7 dissect.util==3.24 || exit 2
qemu-img create -q -f raw base.raw 1M && qemu-img create -q -f qcow2 base.qcow2 1M || exit 2
for compat in 0.10 1.1; do
  for format in raw qcow2; do
    qemu-img create -q -f qcow2 -o "compat=$compat" -b "base.$format" -F "$format" "$compat-$format" && qemu-img check -q "$compat-$format" || exit 2
  done
done
venv/bin/python - <<'P'
import sys
from importlib.metadata import version
from pathlib import Path

from dissect.hypervisor.disk.qcow2 import QCow2

print("dissect.hypervisor", version("dissect.hypervisor"))


def look(name: str) -> str:
    try:
        image = QCow2(Path(name))
    except Exception as error:
        return f"not opened: {type(error).__name__}: {error}"
    return f"incompatible features {image.header.incompatible_features:#x}, format of the backing file {image.backing_format}"


seen = {name: look(name) for name in ("1.1-raw", "1.1-qcow2", "0.10-raw", "0.10-qcow2")}
for name, result in seen.items():
    print(f"{name}: {result}")
expected = {
    "1.1-raw": "incompatible features 0x0, format of the backing file RAW",
    "1.1-qcow2": "incompatible features 0x0, format of the backing file QCOW2",
    "0.10-raw": "incompatible features 0xe2792aca00000003, format of the backing file None",
    "0.10-qcow2": "not opened: ValueError: Invalid name None",
}
sys.exit(seen != expected)
P
