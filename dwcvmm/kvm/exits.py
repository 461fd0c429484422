"""Names of KVM's exits, as in <linux/kvm.h> without the prefix."""

from dwcvmm._core import lib

_PREFIX = "KVM_EXIT_"
EXIT_NAMES = {
    int(getattr(lib, _PREFIX + name)): name.lower()
    for name in (
        *("UNKNOWN", "EXCEPTION", "IO", "HYPERCALL", "DEBUG", "HLT", "MMIO", "IRQ_WINDOW_OPEN", "SHUTDOWN"),
        *("FAIL_ENTRY", "INTR", "SET_TPR", "TPR_ACCESS", "NMI", "INTERNAL_ERROR", "SYSTEM_EVENT"),
        *("DIRTY_RING_FULL", "X86_RDMSR", "X86_WRMSR"),
    )
}


def exit_name(reason: int) -> str:
    return EXIT_NAMES.get(reason, f"exit_{reason}")
