"""The core under AddressSanitizer and UndefinedBehaviorSanitizer: devices, comparison, guests with each kind of end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import copy_tree, needs_kvm, run_tests_in

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g"
TESTS = (
    *(f"tests/unit/test_{name}.py" for name in ("devices", "pit", "rtc", "platform")),
    *("tests/core/test_state_compare.py", "tests/guest/test_tokens.py", "tests/faults"),
)
# interrupts, spin: slow under shadow paging, and no code of their own. The others read time: with a core this slow both
# replicas read the same now and then, and where the TSC runs on no replay reads it again (docs/decisions/0002)
WHICH = "not interrupts and not spin and not rdtsc and not entries"


def library(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


needs_libasan = pytest.mark.skipif(
    not Path(library("libasan.so")).is_absolute(), reason="install libasan (comes with Debian's gcc)"
)


def run_sanitized(tree: Path, *tests: str) -> tuple[int, str]:
    """(exit code, all that was said). The interpreter itself is not instrumented, and leaks what it likes."""
    libraries = f"{library('libasan.so')} {library('libubsan.so')}"
    environment = {"LD_PRELOAD": libraries, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    # -s: captured, a report would be gone with the process
    result = run_tests_in(tree, "-s", *tests, flags=FLAGS, **environment)
    return result.returncode, result.stdout + result.stderr


@needs_kvm
@needs_libasan
@pytest.mark.timeout(400)
def test_core_under_sanitizers(tmp_path: Path, guests: Path) -> None:
    copy_tree(tmp_path)
    code, said = run_sanitized(tmp_path, "--timeout=120", *TESTS, "-k", WHICH)
    assert code == 0, said[-6000:]


@needs_libasan
@pytest.mark.timeout(100)
def test_sanitizers_see_a_planted_overflow(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    source = tmp_path / "cbits" / "pc" / "uart.c"
    good = "u->tx_count < DWC_UART_TX"
    assert source.read_text().count(good) == 1, "the planted bug has lost its place"
    source.write_text(source.read_text().replace(good, "u->tx_count < 1000 * DWC_UART_TX"))
    code, said = run_sanitized(tmp_path, "tests/unit/test_devices.py")
    assert code != 0
    assert "out of bounds" in said
