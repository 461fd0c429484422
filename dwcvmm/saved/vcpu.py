"""A vCPU's state as named fields, and back."""

from __future__ import annotations

from collections.abc import Mapping

from dwcvmm.core.saving import Times
from dwcvmm.core.state import State
from dwcvmm.saved.form import ClockForm, VcpuForm
from dwcvmm.saved.xsave import Component, build, named

# of <linux/kvm.h>: which fields a kernel knows is its own affair
KERNELS_OWN = ("flags", "pad")


def saved_vcpu(state: State, when: Times, halted: bool, layout: Mapping[int, Component]) -> VcpuForm:
    """`layout`: of the XSAVE area on this host. Raises ValueError if that holds what cannot be saved."""
    return VcpuForm(
        regs=state.regs.document(),
        sregs=state.sregs.document(),
        events=state.events.document(KERNELS_OWN),
        debugregs=state.debugregs.document(KERNELS_OWN),
        xcrs={str(number): value for number, value in state.xcrs.values().items()},
        msrs={f"{index:#x}": value for index, value in state.msrs.values().items()},
        xsave=named(state.xsave.content(), layout),
        halted=halted,
        clock=ClockForm(**when._asdict()),
    )


def fill(state: State, form: VcpuForm, layout: Mapping[int, Component]) -> None:
    """Put what was saved into the state of a new vCPU, which has the shape of this host. Raises ValueError."""
    state.regs.set_document(form.regs)
    state.sregs.set_document(form.sregs)
    state.events.set_document(form.events, KERNELS_OWN)
    state.debugregs.set_document(form.debugregs, KERNELS_OWN)
    for number, value in form.xcrs.items():
        state.xcrs.set(int(number), value)
    for text, value in form.msrs.items():
        state.msrs.set(int(text, 16), value)
    state.xsave.set_content(build(form.xsave, layout))


def times_of(form: ClockForm) -> Times:
    return Times(form.guest_ns, form.tsc, form.site_base, form.site_last, form.tsc_aux)
