"""Keep one idle VM with a vCPU open for the life of the amd testbed.

The first VM, and the first vCPU without an in-kernel APIC, switch static keys in the scheduler and in KVM, the last
one switches them back: kernel text is patched each time. QEMU TCG with a thread a CPU now and then goes on executing
the INT3 of such a patch for ever, on both CPUs. With a VM held the keys stay as they are.
"""

import fcntl
import signal
import sys

KVM_CREATE_VM, KVM_CREATE_VCPU = 0xAE01, 0xAE41

with open("/dev/kvm", "rb+", buffering=0) as kvm:
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    print("held", file=sys.stdout, flush=True)
    signal.pause()
