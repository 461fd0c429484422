"""A stock kernel boots under double execution on real KVM, on whatever machine the tests run."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from conftest import ROOT

from dwcvmm.report.schema import load
from dwcvmm.report.verdict import complaints

MACHINE_DIED = 125  # the emulator ended, which says nothing about the guest in it (docs/testbeds.md)


@pytest.mark.timeout(900)
@pytest.mark.skipif("DWCVMM_TESTBED" in os.environ, reason="inside a testbed already")
@pytest.mark.skipif(
    os.geteuid() != 0 and not shutil.which("qemu-system-x86_64"), reason="install qemu-system-x86, or be root"
)
def test_linux_boots_in_the_amd_testbed() -> None:
    subprocess.run([ROOT / "guest-images" / "linux" / "build.sh"], check=True)
    report = ROOT / "build" / "nested-linux.json"
    report.unlink(missing_ok=True)
    linux = ROOT / "build" / "guests" / "linux"
    command = [
        *(ROOT / "scripts" / "testbed", "amd", "--timeout", "800", "--", ".venv/bin/dwcvmm", "run"),
        *("--kernel", linux / "vmlinuz", "--initrd", linux / "initramfs.cpio", "--strategy", "parallel"),
        *("--report", report, "--timeout", "600s"),
    ]
    for _ in range(2):
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if result.returncode != MACHINE_DIED:
            break
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "DWCVMM-INIT-OK Linux" in result.stdout
    assert complaints(load(report)) == []
    assert load(report).host.kvm_module == "kvm_amd"
