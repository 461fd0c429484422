"""The core under AddressSanitizer and UndefinedBehaviorSanitizer: devices, comparison, guests with each kind of end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import needs_kvm
from othercore import build_core, copy_tree, plant, run_tests_in, shared_by_workers

FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g1")
TESTS = (
    *(f"tests/unit/test_{name}.py" for name in ("devices", "pit", "rtc", "platform", "pci", "virtqueue", "net")),
    *("tests/core/test_state_compare.py", "tests/guest/test_tokens.py", "tests/faults"),
    "tests/guest/test_serial.py::test_the_numbers_of_what_was_sent",
)
SLOW = ("interrupts", "spin")  # under shadow paging, and no code of their own
# with a core this slow both replicas read the same now and then, and where the TSC runs on no replay reads it again
# (docs/decisions/0002)
TIME = ("rdtsc", "entries", "reads", "alarms", "sways", "clears", "split", "blamed_for_time")
# capstone finds branches, which campaigns hit, too, and what instructions access; AddressSanitizer refuses its library
# (opened with RTLD_DEEPBIND)
BY_CAPSTONE = ("branch", "campaign", "cluster", "pruning")
WHICH = " and ".join(f"not {each}" for each in (*SLOW, *TIME, *BY_CAPSTONE))


def library(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


needs_libasan = pytest.mark.skipif(
    not Path(library("libasan.so")).is_absolute(), reason="install libasan (comes with Debian's gcc)"
)


def run_sanitized(tree: Path, objects: Path, *tests: str) -> tuple[int, str]:
    """(exit code, all that was said). The interpreter itself is not instrumented, and leaks what it likes."""
    libraries = f"{library('libasan.so')} {library('libubsan.so')}"
    environment = {"LD_PRELOAD": libraries, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    build_core(tree, objects, *FLAGS)
    # -s: captured, a report would be gone with the process
    result = run_tests_in(tree, "-x", "-s", *tests, **environment)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_by_workers(tmp_path_factory) / "objects"


@needs_kvm
@needs_libasan
@pytest.mark.timeout(1800)
def test_core_under_sanitizers(tmp_path: Path, guests: Path, objects: Path) -> None:
    copy_tree(tmp_path)
    code, said = run_sanitized(tmp_path, objects, "--timeout=600", *TESTS, "-k", WHICH)
    assert code == 0, said[-6000:]


@needs_libasan
@pytest.mark.timeout(300)
def test_sanitizers_see_a_planted_overflow(tmp_path: Path, objects: Path) -> None:
    copy_tree(tmp_path)
    plant(tmp_path, "cbits/pc/sent.c", "s->count > DWC_SENT_BYTES - DWC_SENT_HEAD - 1", "0")
    code, said = run_sanitized(tmp_path, objects, "tests/unit/test_devices.py")
    assert code != 0
    assert "AddressSanitizer: heap-buffer-overflow" in said
