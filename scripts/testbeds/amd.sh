# kvm_amd inside QEMU TCG: Debian's full kernel, the host's root read-only over 9p. Sourced by scripts/testbed.
# Wanted: $root, $run (a directory of our own), $command_file, $timeout, $verbose

testbed_packages() {
  need qemu-system-x86_64 qemu-system-x86
  need cpio cpio
}

modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console netfs fscache 9pnet
  9pnet_virtio 9p overlay irqbypass ccp kvm kvm-amd"

# Kernel and initramfs, made once.
testbed_prepare() {
  local kernel tree=$cache/tree module path
  [ -s "$cache/amd-initramfs" ] && [ "$cache/amd-initramfs" -nt "$root/scripts/testbeds/amd-init" ] && return
  say "preparing the amd testbed (kernel package, initramfs)"
  apt-cache show linux-image-amd64 >/dev/null 2>&1 || apt-get update -q >/dev/null
  kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -1)
  for package in "$kernel" busybox-static; do
    compgen -G "$cache/${package}_*.deb" >/dev/null || (cd "$cache" && apt-get download -q -o APT::Sandbox::User=root "$package" >/dev/null)
    dpkg -x "$cache/$package"_*.deb "$tree"
  done
  cp "$tree"/boot/vmlinuz-* "$cache/vmlinuz"
  rm -rf "$cache/initramfs" && mkdir -p "$cache/initramfs"/{bin,dev,proc,sys,lower,upper,new,modules}
  cp "$tree/bin/busybox" "$cache/initramfs/bin/"
  install -m 755 "$root/scripts/testbeds/amd-init" "$cache/initramfs/init"
  for module in $modules; do
    path=$(find "$tree/lib/modules" -name "$module.ko*" | head -1)
    [ -z "$path" ] && continue # built in
    cp "$path" "$cache/initramfs/modules/"
    basename "$path" >>"$cache/initramfs/modules/order"
  done
  (cd "$cache/initramfs" && find . | cpio --quiet -o -H newc) >"$cache/amd-initramfs"
  rm -rf "$tree" "$cache/initramfs"
}

# No ERMS: emulated, REP MOVSB is a loop of bytes, and the kernel copies a bitmap each element by it. No
# XSAVE: this emulator does not intercept XSETBV, so KVM never learns of the guest's XCR0.
testbed_run() {
  qemu-system-x86_64 -accel tcg,thread=multi -cpu max,+svm,+npt,-erms,-fsrm,-xsave,-la57 -smp 2 -m "${DWCVMM_TESTBED_MIB:-4096}" \
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
