# kvm_amd inside QEMU TCG (ours: testbeds/qemu): Debian's full kernel, the host's root read-only over 9p. Sourced by scripts/testbed.
# Wanted: $root, $cache, $run (a directory of its own)

testbed_packages() {
  need cpio cpio
  need depmod kmod
}

# Built once, whatever other kinds of testbeds do at the same time.
testbed_emulator() { qemu=$(flock "$cache/qemu.lock" "$root/scripts/testbeds/qemu/build.sh" "$cache/qemu"); }

# Kernel and initramfs, made once.
testbed_prepare() {
  [ -s "$cache/amd-initramfs" ] && [ "$cache/amd-initramfs" -nt "$root/scripts/testbeds/amd-init" ] \
    && [ "$cache/amd-initramfs" -nt "$root/scripts/testbeds/amd.sh" ] && return
  say "preparing the amd testbed (kernel package, initramfs)"
  unpack_kernel "$cache/tree"
  cp "$cache/tree"/boot/vmlinuz-* "$cache/vmlinuz"
  make_initramfs "$cache/tree" "$root/scripts/testbeds/amd-init" "$cache/amd-initramfs" \
    virtio_pci virtio_console 9pnet_virtio 9p overlay dummy tun kvm-amd
  rm -rf "$cache/tree"
}

# What runs in the machine before the command: see hold_kvm.py.
testbed_before() {
  echo 'exec 9< <(exec .venv/bin/python scripts/testbeds/hold_kvm.py)'
  echo 'read -r _ <&9; exec 9<&-'
}

# No ERMS: emulated, REP MOVSB is a loop of bytes, and the kernel copies a bitmap each element by it. No
# XSAVE: this emulator does not intercept XSETBV, so KVM never learns of the guest's XCR0. Zen 2 (family 23, model 49): for
# family 15, which `max` is, kernels write MSRs of the K8 that KVM refuses.
testbed_run() {
  "$qemu" -L /usr/share/qemu -L /usr/share/seabios -accel tcg,thread=single -cpu max,family=23,model=49,stepping=0,+svm,+npt,-erms,-fsrm,-xsave,-la57 -smp "${DWCVMM_TESTBED_CPUS:-2}" -m "${DWCVMM_TESTBED_MIB:-4096}" \
    -nodefaults -no-reboot -display none -monitor none -nic none \
    -kernel "$cache/vmlinuz" -initrd "$cache/amd-initramfs" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable nmi_watchdog=0 random.trust_cpu=on" \
    -serial "file:$run/console" \
    -device virtio-serial-pci -chardev "file,id=out,path=$run/output" -device virtconsole,chardev=out \
    -fsdev "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap" \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -fsdev "local,id=build,path=$root/build,security_model=none" -device virtio-9p-pci,fsdev=build,mount_tag=build \
    -fsdev "local,id=run,path=$run,security_model=none" -device virtio-9p-pci,fsdev=run,mount_tag=run &
}
