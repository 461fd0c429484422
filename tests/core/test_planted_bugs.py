"""The tests can fail: each planted bug, built into a copy of the C core, makes the test named with it fail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import copy_tree, needs_kvm, run_tests_in

from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging


@dataclass(frozen=True)
class Bug:
    file: str
    good: str
    bad: str
    caught_by: str
    shadow_paging: bool | None = None  # where the host's kind matters
    tests: str = "tests/faults"
    emulated: bool = True  # an emulated machine shows it, too


BUGS = {
    "a page of the logs is left out": Bug(
        "memory/pages.c",
        "\t\te->dirty[e->dirty.count++].page = (uint32_t)(gpa / DWC_PAGE);",
        "\t\tif (gpa != 0x400000)\n\t\t\te->dirty[e->dirty.count++].page = (uint32_t)(gpa / DWC_PAGE);",
        "test_dirty_page",
    ),
    "a rollback believes any page": Bug(
        "memory/guard.c",
        "if (dwc_page_sum(saved) == sum)",
        "if (1)",
        "test_a_damaged_checkpoint_is_not_believed and ram",
    ),
    "a rollback believes any registers": Bug(
        "memory/guard.c",
        "if (dwc_checkpoint_sum(e) != e->checkpoint.sum)",
        "if (0)",
        "test_a_damaged_checkpoint and rbx",
    ),
    "XSAVE left out of the restore": Bug(
        "vcpu/state.c",
        "(err = dwc_ioctl(r->vcpu_fd, KVM_SET_XSAVE, &s.xsave)) < 0",
        "(err = 0) < 0",
        "test_restart_starts_from_the_old_state",
    ),
    "general registers left out of the restore": Bug(
        "vcpu/state.c",
        "(err = dwc_ioctl(r->vcpu_fd, KVM_SET_REGS, &s.regs)) < 0",
        "(err = 0) < 0",
        "test_register",
    ),
    "rollback without TLB flush": Bug(
        "element/rollback.c",
        "r->engine->config.flush == DWC_FLUSH_PGE)",
        "0)",
        "test_restart_starts_from_the_old_state",
        shadow_paging=False,
        emulated=False,
    ),
    "rollback without new memory slots": Bug(
        "element/rollback.c",
        "if (e->config.flush == DWC_FLUSH_MEMSLOT && (err = dwc_pages_rearm(e)))",
        "if (0 && (err = dwc_pages_rearm(e)))",
        "test_restart_starts_from_the_old_state and paging3",
        shadow_paging=True,
    ),
    "in-place: e2 starts with the pages of e1": Bug(
        "element/inplace.c",
        "\tcopy_changed(e, vm->ram, e->checkpoint.ram);\n",
        "",
        "test_dirty_page and in-place",
        shadow_paging=False,
    ),
    "in-place: what INS wrote is no part of the checkpoint": Bug(
        "element/inplace.c",
        "(mmio_read || again || vm->run->s.regs.regs.rdi != rdi)",
        "(mmio_read || again || rdi == 1)",
        "test_each_part_of_a_transfer and in-place",
        shadow_paging=False,
        tests="tests/guest/test_in_place.py",
    ),
    "in-place: an I/O instruction is not finished before the registers are restored": Bug(
        "element/inplace.c",
        "if ((err = dwc_replica_complete(vm)))",
        "if ((err = 0))",
        "test_each_part_of_a_transfer and in-place",
        shadow_paging=False,
        tests="tests/guest/test_in_place.py",
    ),
}


@needs_kvm
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(BUGS))
def test_planted_bug_is_caught(name: str, guests: Path, tmp_path: Path) -> None:
    bug = BUGS[name]
    if bug.shadow_paging not in (None, uses_shadow_paging(kvm_module())):
        pytest.skip(f"doctor: two_dimensional_paging: shadow paging {'absent' if bug.shadow_paging else 'present'}")
    if not bug.emulated and "DWCVMM_TESTBED" in os.environ:
        pytest.skip("QEMU TCG flushes the TLB at every entry, and this bug was tried in bochs and not seen either")
    copy_tree(tmp_path)
    source = tmp_path / "cbits" / bug.file
    text = source.read_text()
    assert text.count(bug.good) == 1, "the planted bug has lost its place"
    source.write_text(text.replace(bug.good, bug.bad))
    result = run_tests_in(tmp_path, "--timeout=40", bug.tests, "-k", bug.caught_by)
    # 1: a test failed; a test that hangs is ended by the time limit, with the same code
    assert result.returncode == 1, result.stdout + result.stderr
    assert str(tmp_path) in result.stdout + result.stderr or "FAILED" in result.stdout
