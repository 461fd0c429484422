"""The tests can fail: each bug planted in a copy of the project makes the test named with it fail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import needs_kvm
from othercore import build_core, copy_tree, failures, plant, run_tests_in, shared_by_workers

from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging

NAMES = ("single_bit", "scrub", "points", "inner_exits")
SINGLE_BIT, SCRUB, POINTS, INNER = (f"tests/faults/test_{name}.py" for name in NAMES)
NET, SERIAL = "tests/unit/test_net.py", "tests/guest/test_serial.py"
DEBUGGER = "tests/guest/test_debugger.py"
IN_PLACE, ACCOUNT, MEMORY_USE = (f"tests/guest/test_{name}.py" for name in ("in_place", "account", "memory_use"))


@dataclass(frozen=True)
class Bug:
    file: str
    good: str
    bad: str
    caught_by: str  # this test, and no other that runs
    which: str = ""  # of its parameters
    shadow_paging: bool | None = None  # where the host's kind matters
    emulated: bool = True  # an emulated machine shows it, too


BUGS = {
    "buffers of a frame that does not fit are lost": Bug(
        "cbits/memory/frames.c",
        "\t\tif (status != GIVEN)\n\t\t\t*q = before;\n",
        "\t\tif (status != GIVEN)\n\t\t\tq->size = before.size;\n",
        f"{NET}::test_a_frame_waits_for_all_its_buffers",
    ),
    "a frame is cut by a byte": Bug(
        "cbits/memory/frames.c",
        "\tlength = to->first.readable_bytes - DWC_NET_HEADER;",
        "\tlength = to->first.readable_bytes - DWC_NET_HEADER - 1;",
        f"{NET}::test_every_frame_leaves_once_and_in_order",
    ),
    "a page of the logs is left out": Bug(
        "cbits/memory/pages.c",
        "bits = a->dirty[word] | b->dirty[word];",
        "bits = (a->dirty[word] | b->dirty[word]) & (word == 0x400 / 64 ? ~1ull : ~0ull);",
        f"{SINGLE_BIT}::test_dirty_page",
    ),
    "reading the status of the power button clears it": Bug(
        "cbits/pc/power.c",
        "\t\tdwc_answer(a, a->at, both);\n\t}\n\treturn 1;",
        "\t\tdwc_answer(a, a->at, both);\n\t\tp->events = 0;\n\t}\n\treturn 1;",
        "tests/unit/test_platform.py::test_the_power_button_is_a_level",
    ),
    "an element with a fault is cut for a pause": Bug(
        "cbits/element/element.c",
        "\tdwc_set_phase(e, DWC_PHASE_START_VISITED);\n",
        "\tdwc_set_phase(e, DWC_PHASE_START_VISITED);\n\te->replicas[0].may_be_cut = e->replicas[1].may_be_cut = 1;\n",
        "tests/guest/test_pause.py::test_an_element_with_a_fault_is_not_cut",
        "sequential",
    ),
    "time in Python counts as the device's": Bug(
        "cbits/element/element.c",
        "\tdwc_account(e, DWC_AT_PYTHON);\n",
        "",
        f"{ACCOUNT}::test_python_and_the_start_have_names",
    ),
    "the two runs in vain count as runs": Bug(
        "cbits/element/element.c",
        "\tif ((status = dwc_engine_commit(e))) {\n\t\tdwc_account_discard(e);",
        "\tif ((status = dwc_engine_commit(e))) {",
        f"{ACCOUNT}::test_a_rollback_its_replay_and_the_run_in_vain_have_names",
    ),
    "a rollback restores no page that no log names": Bug(
        "cbits/memory/pages.c",
        "gpa = all ? 0 : DWC_NO_PAGE;",
        "gpa = DWC_NO_PAGE;",
        f"{SINGLE_BIT}::test_page_that_is_used_much_later",
    ),
    "the first use of a memory slot is missed": Bug(
        "cbits/memory/pages.c",
        "if (!r->slots[i].used && (err",
        "if (!r->slots[i].used && !i && (err",
        f"{MEMORY_USE}::test_ram_above_4_gib",
        "sequential",
    ),
    "devices are not compared": Bug(
        "cbits/replica/inner.c",
        "\treturn (!a->inner.pc && !b->inner.pc) ||",
        "\treturn 1 || (!a->inner.pc && !b->inner.pc) ||",
        f"{INNER}::test_device_state",
        "e1-sequential",
    ),
    "all serial ports send by the first": Bug(
        "cbits/pc/pc.c",
        "dwc_sent_add(&pc->sent, index,",
        "dwc_sent_add(&pc->sent, 0,",
        f"{SERIAL}::test_two_ports",
        "sequential-slice",
    ),
    "input of the second serial port is forgotten": Bug(
        "cbits/element/between.c",
        "i = 0; e->requests.backlog >> i; i++",
        "i = 0; i < 1; i++",
        f"{SERIAL}::test_two_ports",
        "sequential-slice",
    ),
    "a debugger sets the registers of one replica": Bug(
        "cbits/element/debugger.c",
        "\tif ((err = dwc_replica_call_both(e, job_set)))\n\t\treturn err;\n\tif (e->vms == 2",
        "\tif ((err = dwc_replica_call(&e->replicas[0], job_set)))\n\t\treturn err;\n\tif (0",
        f"{DEBUGGER}::test_registers_are_set_in_all_copies",
        "sequential",
    ),
    "single steps pass breakpoints": Bug(
        "cbits/element/steps.c",
        "\t\tmet = r->engine->points.count && meets_points(r);\n",
        "\t\tmet = r->engine->points.count && meets_points(r) && r->engine->points.count > 99;\n",
        f"{DEBUGGER}::test_each_call_is_met_once",
        "sequential-steps",
    ),
    "inner exits are not compared": Bug(
        "cbits/replica/inner.c",
        "a->inner.flow != b->inner.flow",
        "0",
        f"{INNER}::test_a_wrong_byte_that_leaves_no_trace",
    ),
    "a restart goes on with the devices as they were": Bug(
        "cbits/replica/inner.c",
        "\tr->inner.pc = NULL;\n\tr->inner.stopped",
        "\tr->inner.stopped",
        f"{INNER}::test_device_state",
        "e2-sequential",
    ),
    "a rollback believes any page": Bug(
        "cbits/memory/guard.c",
        "if (dwc_page_sum(dwc_saved_page(e, gpa)) == sum)",
        "if (1)",
        f"{SCRUB}::test_a_damaged_checkpoint_is_not_believed",
        "ram",
    ),
    "a rollback believes any registers": Bug(
        "cbits/memory/guard.c",
        "if (dwc_checkpoint_sum(e) != e->checkpoint.sum)",
        "if (0)",
        f"{SCRUB}::test_a_damaged_checkpoint_is_not_believed",
        "rbx",
    ),
    "XSAVE left out of the restore": Bug(
        "cbits/vcpu/state.c",
        "(err = dwc_ioctl(r->vcpu_fd, KVM_SET_XSAVE, &s.xsave)) < 0",
        "(err = 0) < 0",
        f"{SINGLE_BIT}::test_restart_starts_from_the_old_state",
    ),
    "general registers left out of the restore": Bug(
        "cbits/vcpu/state.c",
        "(err = dwc_ioctl(r->vcpu_fd, KVM_SET_REGS, &s.regs)) < 0",
        "(err = 0) < 0",
        f"{SINGLE_BIT}::test_register",
    ),
    "rollback without TLB flush": Bug(
        "cbits/element/rollback.c",
        "r->engine->config.tlb_flush == DWC_TLB_FLUSH_PGE)",
        "0)",
        f"{SINGLE_BIT}::test_restart_starts_from_the_old_state",
        shadow_paging=False,
        emulated=False,
    ),
    "rollback without new memory slots": Bug(
        "cbits/element/rollback.c",
        "if (e->config.tlb_flush == DWC_TLB_FLUSH_MEMSLOT && (err = dwc_pages_readd_slot(e)))",
        "if (0 && (err = dwc_pages_readd_slot(e)))",
        f"{SINGLE_BIT}::test_restart_starts_from_the_old_state",
        "paging3",
        shadow_paging=True,
    ),
    "in-place: e2 starts with the pages of e1": Bug(
        "cbits/element/inplace.c",
        "\trestore_changed(e);\n",
        "",
        f"{SINGLE_BIT}::test_dirty_page",
        "in-place",
        shadow_paging=False,
    ),
    "in-place: what INS wrote is no part of the checkpoint": Bug(
        "cbits/element/inplace.c",
        "(mmio_read || again || vm->run->s.regs.regs.rdi != rdi)",
        "(mmio_read || again || rdi == 1)",
        f"{IN_PLACE}::test_each_part_of_a_transfer_reaches_its_device_once",
        "in-place",
        shadow_paging=False,
    ),
    "in-place: an I/O instruction is not finished before the registers are restored": Bug(
        "cbits/element/inplace.c",
        "if ((err = dwc_replica_complete(vm)))",
        "if ((err = 0))",
        f"{IN_PLACE}::test_each_part_of_a_transfer_reaches_its_device_once",
        "in-place",
        shadow_paging=False,
    ),
    "every rollback ends the run": Bug(
        "cbits/element/rollback.c",
        "\tif (err)\n\t\treturn err;\n\te->slice.counts_void = 1;\n\te->divergence.groups = diff;",
        "\tif (!err)\n\t\terr = DWC_ROLLBACK_DAMAGED;\n\tif (err)\n\t\treturn err;\n\te->divergence.groups = diff;",
        f"{IN_PLACE}::test_a_restart_of_two_vms_loses_no_transfer",
        "54 or 66",
        shadow_paging=True,
    ),
    "a fault is noted and not put there": Bug(
        "dwcvmm/faults/flip.py",
        "            _change_register(registers, fault)\n            vcpu.set(registers)",
        "            vcpu.set(registers)",
        f"{SINGLE_BIT}::test_every_element_of_a_checkpoint",
        "ports",
    ),
    "a kick stops the first replica of a thread, whichever runs": Bug(
        "cbits/replica/replica.c",
        "\t\tkicked = r;\n\t\treturn job(r);",
        "\t\treturn job(r);",
        f"{POINTS}::test_some_time_in",
        "e2-sequential",
        shadow_paging=True,  # two replicas on a thread
    ),
    "a doorbell acts before its element is committed": Bug(
        "cbits/pc/virtio.c",
        "\tif (!a->committed)\n\t\treturn 0;\n\tf->waiting",
        "\tf->waiting",
        "tests/unit/test_pci.py::test_a_doorbell_waits_until_it_is_committed",
    ),
    "a device's interrupt takes the line from another one": Bug(
        "cbits/pc/interrupts.c",
        "(pc->pci.pins & same_gsi) != 0",
        "(pc->pci.pins & same_gsi & 1u << slot) != 0",
        "tests/unit/test_pci.py::test_interrupt_pins_share_lines",
    ),
    "a page that a device fills stays damaged": Bug(
        "cbits/memory/dma.c",
        "length == DWC_PAGE || ",
        "",
        f"{SCRUB}::test_a_damaged_page_that_a_device_fills_is_right_again",
    ),
    "an answer is lost when the machine is saved": Bug(
        "cbits/element/settle.c",
        "\tif ((err = dwc_replica_feed(r)))\n\t\treturn err;\n",
        "\tif ((err = 0))\n\t\treturn err;\n",
        "tests/guest/test_saved_guests.py::test_nothing_is_pending_where_it_is_saved",
    ),
    "copies of a RAM that was saved write into each other": Bug(
        "cbits/memory/mapped.c",
        "MAP_PRIVATE | MAP_FIXED",
        "MAP_SHARED | MAP_FIXED",
        "tests/guest/test_saved_guests.py::test_copies_of_ram_share_what_was_saved_and_nothing_else",
    ),
    "the code behind a trap is not kept": Bug(
        "cbits/sites/sites.c",
        "\tmemcpy(site->original, e->replicas[0].ram + found->gpa, found->read.length);\n",
        "",
        "tests/guest/test_saved_guests.py::test_learned_sites_are_undone_in_what_is_saved",
    ),
}


@pytest.fixture
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_by_workers(tmp_path_factory) / "objects"


@needs_kvm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(BUGS))
def test_planted_bug_is_caught(name: str, guests: Path, tmp_path: Path, objects: Path) -> None:
    bug = BUGS[name]
    if bug.shadow_paging not in (None, uses_shadow_paging(kvm_module())):
        pytest.skip(f"doctor: two_dimensional_paging: shadow paging {'absent' if bug.shadow_paging else 'present'}")
    if not bug.emulated and "DWCVMM_TESTBED" in os.environ:
        pytest.skip("QEMU TCG flushes the TLB at every entry, and this bug was tried in bochs and not seen either")
    copy_tree(tmp_path)
    plant(tmp_path, bug.file, bug.good, bug.bad)
    build_core(tmp_path, objects, "-O1")
    result = run_tests_in(tmp_path, "-x", "--timeout=100", bug.caught_by, "-k", bug.which)
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    ((test, reason),) = failures(said)
    assert test.startswith(bug.caught_by), said
    assert reason.startswith(("assert ", "AssertionError")), said


@needs_kvm
@pytest.mark.timeout(900)
def test_what_catches_them_passes_without_them(guests: Path, tmp_path: Path, objects: Path) -> None:
    """In a copy that was built in the same way."""
    copy_tree(tmp_path)
    build_core(tmp_path, objects, "-O1")
    result = run_tests_in(tmp_path, "--timeout=100", *sorted({bug.caught_by for bug in BUGS.values()}))
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
