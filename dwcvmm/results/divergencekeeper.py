"""`--keep-divergence FILE`: keeps the first divergence with one of certain causes, as it was before the rollback."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from dwcvmm._core import ffi, lib
from dwcvmm.element import guestcode
from dwcvmm.element.divergence import REGISTERS, Cause, Divergence, special_registers
from dwcvmm.kvm.exits import exit_name
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC
from dwcvmm.results.divergencefile import (
    MAX_PAGES,
    PAGE,
    RUNNING,
    XSAVE_BYTES,
    Exit,
    KeptDivergence,
    Page,
    Run,
    State,
    encode,
)
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.results.reportbuilder import VERSION, guest_facts, host_facts

KEPT = (Cause.INJECTED, Cause.UNEXPLAINED, Cause.ALIGNMENT, Cause.CHECKPOINT)
OPTION = "--keep-divergence"
CODE_BYTES = 64  # on each side of RIP
CHUNK = 1 << 18  # bytes of RAM that are compared at a time


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
    """Writes the first divergence with a cause in KEPT to `file`. `arguments` are those of this run's command."""

    def __init__(self, pc: PC, file: OutputFile, arguments: Sequence[str]) -> None:
        self._pc, self._file = pc, file
        self._command = repeat_command(arguments)
        self._pending: Capture | None = None
        self._unsettled: KeptDivergence | None = None  # nobody has voted on it yet
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
        self._unsettled = self._describe(record, capture or take(self._pc.core))
        self.kept = record.element
        self._file.write(encode(self._unsettled))

    def verdict(self, element: int, wrong: list[int] | None) -> None:
        """The element has been run again and committed: add which replica was wrong."""
        kept, self._unsettled = self._unsettled, None
        if kept and wrong is not None and element == kept.element:
            names: tuple[Literal["A", "B"], ...] = ("A", "B")
            self._file.write(encode(msgspec.structs.replace(kept, wrong=[names[index] for index in wrong])))

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


def take(core: Any) -> Capture:
    """Capture both replicas and the checkpoint. Nothing is changed; the dirty logs are as last read."""
    a, b = core.replicas[0], core.replicas[1]
    logged = int(core.log_count)
    synced = core.committed if logged else core.checkpoint
    differing = list(_differing_pages(core))
    pages = [
        Page(
            gpa=gpa,
            logged=any(_in_log(replica, core.nslots, gpa) for replica in (a, b)),
            a=_bytes(a.ram, gpa),
            b=_bytes(b.ram, gpa),
            checkpoint=_bytes(core.checkpoint_ram, gpa),
        )
        for gpa in differing[:MAX_PAGES]
    ]
    vector = int(core.inputs.vector)
    return Capture(
        vector=vector if vector >= 0 else None,
        since_checkpoint=logged,
        before=_state(synced, core.checkpoint, core.has_xcrs),
        runs=(_run(core, a, _is_running(core, 0)), _run(core, b, _is_running(core, 1))),
        pages=pages,
        pages_differ=len(differing),
    )


def _state(synced: Any, others: Any, has_xcrs: bool) -> State:
    """`synced`: the state from which to take the groups that come with each KVM_RUN (cbits/vcpu/state.c)."""
    registers = {name: int(getattr(synced.regs, name)) for name in REGISTERS}
    registers |= special_registers(synced.sregs)
    registers |= {f"events.{name}": value for name, value in _fields(synced.events)}
    registers |= {f"msr:{int(m.index):#x}": int(m.data) for m in others.msrs.entries[0 : others.msrs.count]}
    registers |= {f"dr{i}": int(others.debugregs.db[i]) for i in range(4)}
    registers |= {"dr6": int(others.debugregs.dr6), "dr7": int(others.debugregs.dr7)}
    if has_xcrs:
        registers |= {f"xcr{int(x.xcr)}": int(x.value) for x in others.xcrs.xcrs[0 : others.xcrs.nr_xcrs]}
    return State(registers=registers, xsave=_bytes(ffi.addressof(others, "xsave"), 0, XSAVE_BYTES))


def _fields(struct: Any) -> Iterator[tuple[str, int]]:
    """Names and values of a C structure's fields; those of nested structures as "outer.inner"."""
    for name, field in ffi.typeof(struct).fields:
        value = getattr(struct, name)
        if field.type.kind == "struct":
            yield from ((f"{name}.{inner}", number) for inner, number in _fields(value))
        else:
            yield name, int(value)


def _is_running(core: Any, index: int) -> bool:
    """Whether the replica is the one that hangs (extend() in cbits/element/element.c): its exit is an older one's
    then. With a counter the times say nothing of it.
    """
    hangs = [int(replica.ended_ns - replica.started_ns) >= core.hang_ns for replica in core.replicas]
    return bool(core.diff & lib.DWC_DIFF_HANG) and not core.counting and hangs[index] and not hangs[1 - index]


def _run(core: Any, replica: Any, running: bool) -> Run:
    state, exit_ = replica.state, replica.exit
    if running:
        exit_ = ffi.new("struct dwc_exit *")
    linear = int(state.regs.rip + state.sregs.cs.base) & (1 << 64) - 1
    start, code = _code_around(replica, linear)
    return Run(
        state=_state(state, state, core.has_xcrs),
        exit=Exit(
            reason=RUNNING if running else exit_name(int(exit_.reason)),
            is_write=bool(exit_.is_write),
            port=int(exit_.port),
            gpa=int(exit_.gpa),
            size=int(exit_.size),
            count=int(exit_.count),
            info=int(exit_.info),
            data=bytes(ffi.buffer(exit_.data, min(exit_.size * exit_.count, lib.DWC_IO_BYTES))),
        ),
        cpu=int(replica.cpu),
        linear_rip=linear,
        code_bits=guestcode.code_bits(state.sregs),
        code_at=start,
        code=code,
    )


def _code_around(replica: Any, linear: int) -> tuple[int, bytes]:
    """Returns the start and the bytes of the code around a linear address. It begins at the page's start if the page
    before is not mapped, and is empty if the address itself is not mapped.
    """
    for start in (max(0, linear - CODE_BYTES), max(linear - CODE_BYTES, linear - linear % PAGE)):
        code = guestcode.read_code(replica, start, linear - start + CODE_BYTES)
        if start + len(code) > linear:
            return start, code
    return linear, b""


def _differing_pages(core: Any) -> Iterator[int]:
    """Pages that differ, in all of RAM: a page that a fault changed and nothing wrote is in no dirty log."""
    a, b, ram_bytes = core.replicas[0].ram, core.replicas[1].ram, int(core.ram_bytes)
    for chunk in range(0, ram_bytes, CHUNK):
        size = min(CHUNK, ram_bytes - chunk)
        if ffi.buffer(a + chunk, size) != ffi.buffer(b + chunk, size):
            for gpa in range(chunk, chunk + size, PAGE):
                if ffi.buffer(a + gpa, PAGE) != ffi.buffer(b + gpa, PAGE):
                    yield gpa


def _in_log(replica: Any, slots: int, gpa: int) -> bool:
    for slot in replica.slots[0:slots]:
        if slot.gpa <= gpa < slot.gpa + slot.size:
            page = (gpa - int(slot.gpa)) // PAGE
            return bool(slot.dirty[page // 64] >> page % 64 & 1)
    return False


def _bytes(memory: Any, offset: int, length: int = PAGE) -> bytes:
    return bytes(ffi.buffer(ffi.cast("uint8_t *", memory) + offset, length))
