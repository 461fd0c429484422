"""Names of KVM's exits, as in <linux/kvm.h> without the prefix."""

from dwcvmm.core.enums import KvmExit

EXIT_NAMES = {int(reason): reason.name.lower() for reason in KvmExit}


def exit_name(reason: int) -> str:
    return EXIT_NAMES.get(reason, f"exit_{reason}")
