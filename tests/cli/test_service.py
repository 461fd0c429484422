"""dwcvmm@.service: what systemd says of it, and machines as services of a real systemd, in a container."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, find_program, needs_kvm
from installation import Installed, pip_install

from dwcvmm.errors import ExitCode
from dwcvmm.experiments.check import endless

pytestmark = [pytest.mark.xdist_group("installed"), pytest.mark.timeout(600)]

NAME = "dwcvmm@.service"
MOST_EXPOSURE = "30"  # of 100: what passt and a tap device need remains
TOKEN = (ROOT / "guest-images" / "ports" / "token").read_text()
PYTHON = Path("/usr/bin/python3")  # of the distribution: not in somebody's home
MACHINES = {
    "ends": 'guest = "ports"\nnet = ["user"]\nfault = ["3:e2:rbx:3"]\n',
    "bad": 'guest = "port"\n',
    "stays": 'kernel = "/etc/dwcvmm/spin.bin"\n'
    'report = "/var/lib/dwcvmm/stays/r.json"\ncontrol = "/run/dwcvmm/stays/control"\n',
}
SESSION = """
for i in ends bad; do systemctl start dwcvmm@$i; done
systemctl start dwcvmm@stays
until journalctl -u dwcvmm@stays | grep -q tick && systemctl is-failed -q dwcvmm@bad; do sleep 0.2; done
while systemctl is-active -q dwcvmm@ends; do sleep 0.2; done
systemctl is-active dwcvmm@stays >/out/before
dwcvmm ctl /run/dwcvmm/stays/control query-status >/out/status
systemctl stop dwcvmm@stays
for i in ends bad stays; do
  systemctl show -P Result -P ExecMainStatus -P NRestarts dwcvmm@$i >/out/$i
  journalctl --no-pager -o cat -u dwcvmm@$i >/out/$i.log
done
cp /var/lib/dwcvmm/stays/r.json /out/
systemctl poweroff
"""
UNIT = """[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=120
ExecStart=/bin/sh /usr/local/bin/session
ExecStopPost=systemctl poweroff
"""


@pytest.fixture
def unit(installed: Installed, tmp_path: Path) -> Path:
    """The unit as it is installed, but for the place of the command."""
    text = (installed.prefix / "lib" / "systemd" / "system" / NAME).read_text()
    assert text.count("ExecStart=dwcvmm ") == 1
    (tmp_path / NAME).write_text(text.replace("ExecStart=dwcvmm ", f"ExecStart={installed.prefix}/bin/dwcvmm "))
    return tmp_path / NAME


def test_systemd_understands_the_unit(installed: Installed, unit: Path) -> None:
    find_program("systemd-analyze", "systemd")
    done = installed("systemd-analyze", "verify", unit, MANPATH=f"{installed.prefix}/share/man")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=mixt"))
    assert "kill mode" in installed("systemd-analyze", "verify", unit).stderr


def test_the_unit_exposes_little(installed: Installed, unit: Path) -> None:
    find_program("systemd-analyze", "systemd")
    check = ("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit)
    done = installed(*check)
    assert done.returncode == 0, done.stdout + done.stderr
    unit.write_text(unit.read_text().replace("CapabilityBoundingSet=\n", "").replace("NoNewPrivileges=yes\n", ""))
    assert installed(*check).returncode != 0


@pytest.fixture
def container(installed: Installed, guests: Path, tmp_path: Path) -> Iterator[Path]:
    """The root of this system, with the wheel in /usr/local and machines in /etc/dwcvmm. Changes are forgotten."""
    find_program("systemd-nspawn", "systemd-container")
    find_program("passt", "passt")
    if os.getuid():
        pytest.skip("only root can start a container")
    if subprocess.run([PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode:
        pytest.skip(f"{PYTHON} is not Python 3.11 or later")
    root, layers = tmp_path / "root", tmp_path / "layers"
    for folder in (root, layers):
        folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", layers], check=True)
    try:
        for name in ("upper", "work"):
            (layers / name).mkdir(mode=0o755)
        option = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
        if subprocess.run(["mount", "-t", "overlay", "overlay", "-o", option, root]).returncode:
            pytest.skip("this kernel cannot mount an overlay over the root file system")
        try:
            furnish(root, installed)
            (root / "etc" / "dwcvmm" / "spin.bin").write_bytes(endless((guests / "spin.bin").read_bytes()))
            yield root
        finally:
            subprocess.run(["umount", root], check=True)
    finally:
        subprocess.run(["umount", layers], check=True)


def furnish(root: Path, installed: Installed) -> None:
    options = ("--break-system-packages", "--root-user-action", "ignore", "--ignore-installed", "--prefix", "/usr")
    pip_install(PYTHON, installed.wheel, "--root", str(root), *options)  # Debian's Python makes /usr/local of that
    for folder in ("etc/dwcvmm", "out"):
        (root / folder).mkdir()
    for name, text in MACHINES.items():
        (root / "etc" / "dwcvmm" / f"{name}.toml").write_text(text)
    units = root / "etc" / "systemd" / "system"
    (units / "session.service").write_text(UNIT)
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").write_text("[Unit]\nRequires=session.service basic.target\n")
    (root / "usr" / "local" / "bin" / "session").write_text(SESSION)
    groups = root / "etc" / "group"
    if "\nkvm:" not in groups.read_text():
        groups.write_text(groups.read_text() + "kvm:x:65500:\n")


@needs_kvm
def test_machines_are_services(container: Path, tmp_path: Path) -> None:
    """With all limits of the unit in force: a machine that ends, one with a mistake, and one that is stopped."""
    device = Path("/dev/kvm").stat()
    os.mknod(tmp_path / "kvm", device.st_mode, device.st_rdev)  # with the group that udev would give it
    group = re.search(r"^kvm:\w*:(\d+):", (container / "etc" / "group").read_text(), re.MULTILINE)
    assert group
    os.chown(tmp_path / "kvm", 0, int(group[1]))
    (tmp_path / "kvm").chmod(0o660)
    start = ("systemd-nspawn", "-D", container, "--register=no", "--keep-unit", "-M", f"dwcvmm{os.getpid()}", "-b")
    devices = (f"--bind={tmp_path}/kvm:/dev/kvm", "--console=pipe")
    booted = subprocess.run([*start, *devices], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    out = container / "out"
    assert (out / "r.json").exists(), booted.stdout + booted.stderr
    said = {name: (out / f"{name}.log").read_text() for name in MACHINES}
    assert TOKEN in said["ends"]
    assert "found in element 3, undone" in said["ends"]
    assert "network      passt" in said["ends"]
    assert "there is no tiny guest 'port': ports?" in said["bad"]
    assert (out / "ends").read_text().split() == ["success", "0", "0"]
    assert set((out / "bad").read_text().split()) == {"exit-code", "0", str(int(ExitCode.CONFIG))}, "not started again"
    assert (out / "before").read_text() == "active\n"
    assert "running" in (out / "status").read_text()
    assert (out / "stays").read_text().split()[0] == "success"
    assert '"outcome": "interrupted"' in (out / "r.json").read_text()
