"""dwcvmm.core is the one door to C: who imports what, what can be set, and whether both sides of it name the same."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcvmm.core import enums, fields
from dwcvmm.core.bare import BareCore, document_of
from dwcvmm.core.chipset import Chipset
from dwcvmm.core.engine import Core, Search
from dwcvmm.core.kvmstructs import Regs, Sregs
from dwcvmm.core.replica import Replica
from dwcvmm.core.state import Exit, State, Stats

ROOT = Path(__file__).parents[2]
CORE = ROOT / "dwcvmm" / "core"
BINDING = Path("dwcvmm/core/_binding.py")
# also in programs that are texts, and run in another process; of the package import-linter says the same
OF_C = r"(from|import)\s+dwcvmm\._core\b|from\s+dwcvmm\s+import[^\n]*\b_core\b|import\w*\(\s*[\"']dwcvmm\._core[\"']"
OF_BINDING = r"(?m)^\s*(from|import)\s+dwcvmm\.core\._binding\b|^\s*from\s+dwcvmm\.core\s+import[^\n]*\b_binding\b"
PRIVATE = r"\._c\b|\b_owner\b|\.pointer\b"
NO_CODE = ("cbits/build_core.py", "scripts/architecture")  # they make the module, and draw who imports it
IN_KEPT_DIVERGENCES = {"pad"}  # a field of what is written there by the names that C has
VIEWS = (Core, Exit, Replica, Search, State, Stats)


def sources(root: Path) -> Iterator[Path]:
    for folder in ("dwcvmm", "tests", "scripts", "cbits"):
        for path in sorted((root / folder).rglob("*")):
            is_python = path.suffix == ".py" or (folder == "scripts" and path.is_file() and not path.suffix)
            if is_python and path != Path(__file__):
                yield path


def matches(root: Path, pattern: str) -> set[str]:
    """The files with something that fits, relative to `root`."""
    found = {path for path in sources(root) if re.search(pattern, path.read_text())}
    return {str(path.relative_to(root)) for path in found} - set(NO_CODE)


def outside(files: set[str]) -> list[str]:
    return sorted(file for file in files if not file.startswith("dwcvmm/core/"))


def test_one_file_imports_what_cffi_built() -> None:
    assert matches(ROOT, OF_C) == {str(BINDING)}
    assert outside(matches(ROOT, OF_BINDING)) == []


def test_nobody_outside_reaches_behind_a_view() -> None:
    assert "dwcvmm/core/engine.py" in matches(ROOT, PRIVATE)
    assert outside(matches(ROOT, PRIVATE)) == []


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("from dwcvmm._core import ffi", OF_C),
        ("    from dwcvmm import _core", OF_C),
        ("import dwcvmm._core as c", OF_C),
        ('lib = importlib.import_module("dwcvmm._core").lib', OF_C),
        ('PROGRAM = """\nfrom dwcvmm._core import lib\n"""', OF_C),
        ('lib = __import__("dwcvmm._core").lib', OF_C),
        ("from dwcvmm.core._binding import lib", OF_BINDING),
        ("from dwcvmm.core import _binding", OF_BINDING),
        ("machine.core._c.checkpoint_due = 1", PRIVATE),
    ],
)
def test_a_second_door_is_found(tmp_path: Path, line: str, pattern: str) -> None:
    planted = tmp_path / "dwcvmm" / "page" / "planted.py"
    planted.parent.mkdir(parents=True)
    planted.write_text(f"import os\n{line}\n")
    assert outside(matches(tmp_path, pattern)) == ["dwcvmm/page/planted.py"]


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_view_shows_cannot_be_set(view: type) -> None:
    shown = {name: value for name, value in vars(view).items() if isinstance(value, fields.Value)}
    assert shown
    assert all(value.fset is None for value in shown.values())


def test_fields_of_the_core_cannot_be_set() -> None:
    core = BareCore()
    for name in ("guest_ns", "committed", "checkpoint_every", "checkpoint_due", "visit_from", "phase"):
        with pytest.raises(AttributeError):
            setattr(core, name, 1)
    with pytest.raises(AttributeError):
        core.stats.rollbacks = 1  # type: ignore[assignment]
    state = core.checkpoint_state
    for struct, name in ((core.exit, "port"), (state.regs, "rax"), (state.sregs.cs, "l")):
        with pytest.raises(AttributeError, match="cannot be set"):
            setattr(struct, name, 1)
    with pytest.raises(AttributeError, match="cannot be set"):
        state.xsave.set_byte(0, 1)


def test_a_structure_of_ones_own_can_be_set_and_its_copy_is_another() -> None:
    registers = Sregs(cr3=0x1000)
    registers.cs.base = 7
    copy = registers.copy()
    copy.cs.base = 8
    assert (registers.cr3, registers.cs.base, copy.cr3, copy.cs.base) == (0x1000, 7, 0x1000, 8)
    assert (copy.number("cs.base"), copy.numbers()["cs.base"]) == (8, 8)
    with pytest.raises(AttributeError):
        Regs().set_number("cr3", 1)


def test_what_is_to_be_upset_is_the_cores_own() -> None:
    core = BareCore()
    core.checkpoint_to_upset().regs.rbx = 5
    assert core.checkpoint_state.regs.rbx == 5
    chipset = Chipset()
    chipset.power_on(0)
    chipset.sent.add(0, ord("a"))
    chipset.sent.upset(0, 2)
    assert chipset.sent.drain() == {0: b"c"}


def declared() -> dict[str, str]:
    """What the .cdef files declare, by the kind of name."""
    text = "\n".join((ROOT / "cbits" / f"{name}.cdef").read_text() for name in ("kvm", "devices", "core"))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = dict.fromkeys(re.findall(r"#define (\w+) \.\.\.", text), "constant")
    for body in re.findall(r"enum \w+ \{(.*?)\}", text, re.S):
        found |= dict.fromkeys(re.findall(r"[A-Z]\w+", body), "constant")
    found |= dict.fromkeys(re.findall(r"\b(dwc_\w+)\(", text), "function")
    for body in re.findall(r"struct \w+ \{(.*?)\n?\};", text, re.S):
        without = re.sub(r"struct \{|\[[^]]*\]|\bstruct \w+|\benum \w+", "", body)
        found |= dict.fromkeys(re.findall(r"(\w+)\s*(?=[,;])", without), "field")
    return found


def saved_by_name() -> set[str]:
    """Fields that only documents name: all of the devices in C, and of a queue."""
    queue = set(document_of("struct dwc_virtqueue", b""))
    return queue | set(re.findall(r"\w+", str(Chipset().document())))


def test_what_is_declared_is_used() -> None:
    """No more of C is shown to Python than the door needs. Names of ioctl(2) requests are put together."""
    users = [*CORE.glob("*.py"), *(ROOT / "dwcvmm" / "kvm").glob("*.py"), ROOT / "dwcvmm" / "sandbox.py"]
    words = set(re.findall(r"\w+", "\n".join(path.read_text() for path in users)))
    assert {"lib", "ioctl", "KVM_RUN"} <= words
    names = declared()
    assert {"KVM_RUN": "constant", "dwc_engine_run": "function", "committed": "field"}.items() <= names.items()
    unused = [name for name in names if not {name, name.removeprefix("KVM_"), re.sub("KVM_[GS]ET_", "", name)} & words]
    assert set(unused) - saved_by_name() == IN_KEPT_DIVERGENCES


@pytest.mark.parametrize(
    ("members", "name", "others"),
    [
        (enums.Stop, "dwc_stop", {"DWC_STOP_NONE"}),
        (enums.Rollback, "dwc_rollback_result", set()),
        (enums.Phase, "dwc_phase", {"DWC_PHASES"}),
        (enums.Diff, "dwc_diff", set()),
        (enums.Strategy, "dwc_strategy", {"DWC_STRATEGIES"}),
        (enums.TlbFlush, "dwc_tlb_flush", set()),
        (enums.CacheFlush, "dwc_cache_flush", set()),
        (enums.Copy, "dwc_copy", set()),
        (enums.UserTrap, "dwc_user_trap", set()),
        (enums.InsnKind, "dwc_insn_kind", set()),
    ],
)
def test_enumerations_have_all_members(members: type, name: str, others: set[str]) -> None:
    headers = "\n".join(path.read_text() for path in (ROOT / "cbits").rglob("*.h"))
    body = re.search(rf"enum {name} \{{(.*?)\}};", re.sub(r"/\*.*?\*/", "", headers, flags=re.S), re.S)
    assert body
    named = set(re.findall(r"lib\.(DWC_\w+)", inspect.getsource(members)))
    assert named == set(re.findall(r"DWC_\w+", body[1])) - others
