"""`--keep-divergence FILE`: keeps the first divergence with one of certain causes, as it was before the rollback."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import PAGE, Diff
from dwcvmm.core.replica import Replica
from dwcvmm.core.state import Exit as CoreExit
from dwcvmm.core.state import State as CoreState
from dwcvmm.element import guestcode
from dwcvmm.element.divergence import Cause, Divergence, registers_by_name
from dwcvmm.kvm.exits import exit_name
from dwcvmm.pc.case import Case
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC
from dwcvmm.pc.result import Result
from dwcvmm.results.divergencefile import (
    MAX_PAGES,
    RUNNING,
    Exit,
    KeptDivergence,
    Page,
    Run,
    State,
    encode,
)
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.results.reportbuilder import guest_facts, host_facts
from dwcvmm.version import VERSION

KEPT = (Cause.INJECTED, Cause.UNEXPLAINED, Cause.ALIGNMENT, Cause.CHECKPOINT)
OPTION = "--keep-divergence"
CODE_BYTES = 64  # on each side of RIP


@dataclass
class Capture:
    """What the rollback will undo."""

    vector: int | None
    since_checkpoint: int
    before: State
    runs: tuple[Run, Run]
    pages: list[Page]
    pages_differ: int


class Keeper(Observer):
    """Writes the first divergence with a cause in KEPT to `file`, and its case. `arguments` are those of this run's
    command.
    """

    def __init__(self, pc: PC, file: OutputFile, arguments: Sequence[str], case: Case | None = None) -> None:
        self._pc, self._file, self._case = pc, file, case
        self._command = repeat_command(arguments)
        self._pending: Capture | None = None
        self._undecided: KeptDivergence | None = None  # its element has not been committed yet
        self.kept: int | None = None  # the element whose divergence is in the file

    def before_rollback(self) -> None:
        if self.kept is None:
            self._pending = take(self._pc.core)

    def divergence(self, record: Divergence) -> None:
        """Raises ConfigError if the file cannot be written."""
        capture, self._pending = self._pending, None
        if self.kept is not None or record.cause not in KEPT:
            return
        # a failed replay is a divergence of its own, the last of the run
        self._undecided = self._describe(record, capture or take(self._pc.core))
        self._write(self._undecided)
        if self._case:
            self._case.begin()

    def verdict(self, element: int, wrong: list[int] | None) -> None:
        """The element has been run again and committed: add which replica was wrong."""
        kept, self._undecided = self._undecided, None
        if kept and wrong is not None and element == kept.element:
            names: tuple[Literal["A", "B"], ...] = ("A", "B")
            self._write(msgspec.structs.replace(kept, wrong=[names[index] for index in wrong]))

    def _write(self, divergence: KeptDivergence) -> None:
        self.kept = None  # if it cannot be written nothing is in the file
        self._file.write(encode(divergence))
        self.kept = divergence.element

    def end(self, result: Result) -> None:
        if self._case:
            self._case.end()

    def _describe(self, record: Divergence, capture: Capture) -> KeptDivergence:
        return KeptDivergence(
            version=VERSION,
            command=self._command,
            directory=str(Path.cwd()),
            strategy=self._pc.config.engine.strategy.value,
            host=host_facts(self._pc.replicas.host),
            guest=guest_facts(self._pc),
            cause=record.cause.value,
            element=record.element,
            attempt=record.attempt,
            groups=record.groups,
            detail=record.detail,
            fault=record.detail.get("fault"),
            vector=capture.vector,
            since_checkpoint=capture.since_checkpoint,
            before=capture.before,
            runs=capture.runs,
            pages=capture.pages,
            pages_differ=capture.pages_differ,
        )


def repeat_command(arguments: Sequence[str]) -> str:
    """The command of a run, for a shell, without the option that would overwrite the kept file."""
    left: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == OPTION:
            next(rest, None)
        elif not argument.startswith(f"{OPTION}="):
            left.append(argument)
    return shlex.join(["dwcvmm", *left])


def take(core: Core) -> Capture:
    """Capture both replicas and the checkpoint. Nothing is changed; the dirty logs are as last read."""
    a, b = core.replicas
    differing = list(_differing_pages(core))
    pages = [
        Page(
            gpa=gpa,
            logged=any(replica.in_dirty_log(gpa) for replica in (a, b)),
            a=a.ram.read(gpa, PAGE),
            b=b.ram.read(gpa, PAGE),
            checkpoint=core.checkpoint_ram.read(gpa, PAGE),
        )
        for gpa in differing[:MAX_PAGES]
    ]
    return Capture(
        vector=core.vector,
        since_checkpoint=core.log_count,
        before=_state(core.committed_state, core.checkpoint_state, core.has_xcrs),
        runs=(_run(core, a, _is_running(core, 0)), _run(core, b, _is_running(core, 1))),
        pages=pages,
        pages_differ=len(differing),
    )


def _state(synced: CoreState, others: CoreState, has_xcrs: bool) -> State:
    """`synced`: the state from which to take the groups that come with each KVM_RUN (cbits/vcpu/state.c)."""
    registers = registers_by_name(synced.regs, synced.sregs)
    registers |= {f"events.{name}": value for name, value in synced.events.numbers().items()}
    registers |= {f"msr:{index:#x}": value for index, value in others.msrs.values().items()}
    registers |= {f"dr{i}": value for i, value in enumerate(others.debugregs.db)}
    registers |= {"dr6": others.debugregs.dr6, "dr7": others.debugregs.dr7}
    if has_xcrs:
        registers |= {f"xcr{index}": value for index, value in others.xcrs.values().items()}
    return State(registers=registers, xsave=others.xsave.content())


def _is_running(core: Core, index: int) -> bool:
    """Whether the replica is the one that hangs (dwc_extend() in cbits/element/run.c), whose exit is then an older one.
    With a progress counter the times do not tell.
    """
    hangs = [replica.ran_ns >= core.hang_ns for replica in core.replicas]
    return bool(core.diff & Diff.HANG) and not core.counting and hangs[index] and not hangs[1 - index]


def _run(core: Core, replica: Replica, running: bool) -> Run:
    state, exit_ = replica.state, CoreExit() if running else replica.exit
    start, code = _code_around(replica, state.linear_rip)
    return Run(
        state=_state(state, state, core.has_xcrs),
        exit=Exit(
            reason=RUNNING if running else exit_name(exit_.reason),
            is_write=exit_.is_write,
            port=exit_.port,
            gpa=exit_.gpa,
            size=exit_.size,
            count=exit_.count,
            info=exit_.info,
            data=exit_.data,
        ),
        cpu=replica.cpu,
        linear_rip=state.linear_rip,
        code_bits=state.code_bits,
        code_at=start,
        code=code,
    )


def _code_around(replica: Replica, linear: int) -> tuple[int, bytes]:
    """Returns the start and the bytes of the code around a linear address. It begins at the page's start if the page
    before is not mapped, and is empty if the address itself is not mapped.
    """
    for start in (max(0, linear - CODE_BYTES), max(linear - CODE_BYTES, linear - linear % PAGE)):
        code = guestcode.read_code(replica, start, linear - start + CODE_BYTES)
        if start + len(code) > linear:
            return start, code
    return linear, b""


def _differing_pages(core: Core) -> Iterator[int]:
    """Pages that differ, of all that are in use: a page that a fault changed and nothing wrote is in no dirty log."""
    a, b = (replica.ram for replica in core.replicas)
    return (gpa for gpa in core.touched_pages() if not a.same(b, gpa, PAGE))
