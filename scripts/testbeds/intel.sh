# kvm_intel inside bochs: one CPU, EPT, unrestricted guest, TSC scaling, no PMU unless $pmu says how it deviates.
# Sourced by scripts/testbed.
# No shared file system there: Python goes in on one disk; the project goes in, and what is new in build/ comes out, on
# another.

seccomp=/usr/lib/x86_64-linux-gnu/libseccomp.so.2 # loaded by name, so that no ldd tells of it

testbed_packages() {
  need "$seccomp" libseccomp2
  need /usr/share/bochs/BIOS-bochs-latest bochsbios
  need /usr/share/vgabios/vgabios.bin vgabios
  need /usr/lib/ISOLINUX/isolinux.bin isolinux
  need /usr/lib/syslinux/modules/bios/ldlinux.c32 syslinux-common
  need xorriso xorriso
  need mke2fs e2fsprogs
  need busybox busybox-static
  need cpio cpio
  need depmod kmod
}

# Built once, whatever other kinds of testbeds do at the same time.
testbed_emulator() { bochs=$(flock "$cache/bochs.lock" "$root/scripts/testbeds/bochs/build.sh" "$cache/bochs"); }

# Kernel, initramfs and boot CD, made once.
testbed_prepare() {
  [ -s "$cache/intel.iso" ] && [ "$cache/intel.iso" -nt "$root/scripts/testbeds/intel-init" ] \
    && [ "$cache/intel.iso" -nt "$root/scripts/testbeds/intel.sh" ] && return
  say "preparing the intel testbed (kernel package, boot CD)"
  local iso=$cache/iso
  unpack_kernel "$cache/tree"
  rm -rf "$iso" && mkdir -p "$iso"
  cp "$cache/tree"/boot/vmlinuz-* "$iso/vmlinuz"
  cp "$cache/tree/bin/busybox" "$cache/busybox"
  make_initramfs "$cache/tree" "$root/scripts/testbeds/intel-init" "$iso/initramfs" ata_piix sd_mod crc32c_generic ext4 kvm-intel
  cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$iso/"
  cat >"$iso/isolinux.cfg" <<CONFIG
default l
label l
 kernel /vmlinuz
 append initrd=/initramfs console=ttyS1 quiet panic=1 mitigations=off nokaslr tsc=reliable no_timer_check lpj=4000000 random.trust_cpu=on nmi_watchdog=0 tsc_early_khz=1000000
CONFIG
  xorriso -as mkisofs -quiet -o "$cache/intel.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$iso" 2>"$cache/xorriso.log" || { tail -5 "$cache/xorriso.log" >&2; exit 4; }
  rm -rf "$iso" "$cache/tree"
}

# copy_with_libraries TREE FILE ...: files and the shared objects they need, at their own paths
copy_with_libraries() {
  local tree=$1
  shift
  { printf '%s\n' "$@"; ldd "$@" 2>/dev/null | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^\t\(\/[^ ]*\) (.*/\1/p'; } \
    | sort -u | cpio --quiet -pdmuL "$tree" 2>/dev/null
}

# What rarely changes, as one disk: busybox, bash, the Python that .venv uses, .venv. Kept until one of their files changes.
# Byte code goes along: to compile all that pytest imports would take the machine longer than its boot.
make_root_disk() {
  local tree=$run/tree python library sum
  python=$(readlink -f "$root/.venv/bin/python")
  library=$("$python" -c 'import os; print(os.path.dirname(os.__file__))')
  local what=(--exclude=site-packages --exclude=dist-packages --exclude=".$library/test" --exclude=".$library/config-*"
    --exclude=idlelib --exclude=tkinter --exclude=ensurepip --exclude=lib2to3 --exclude='*.opt-?.pyc' --exclude='*.a')
  local venv=(--exclude=pip --exclude=mypy --exclude=mypyc --exclude='*__mypyc*.so' --exclude=setuptools --exclude=ruff)
  sum=$({ cat "$root/scripts/testbeds/intel.sh"
    find "$library" "$root/.venv" -path "$library/site-packages" -prune -o -name __pycache__ -prune \
      -o -type f -printf '%p %s %T@\n' | sort; } | sha256sum | cut -c1-16)
  disk=$cache/intel-root-$sum.img
  [ -s "$disk" ] && return
  say "packing Python for the intel testbed"
  mkdir -p "$tree"/{bin,dev,proc,sys,tmp,usr/bin,run-testbed,new}
  tar c -C / "${what[@]}" ".$library" | tar x -C "$tree"
  tar c -C / "${venv[@]}" ".$root/.venv" | tar x -C "$tree"
  # shellcheck disable=SC2046 # names without blanks
  copy_with_libraries "$tree" "$python" /bin/bash "$seccomp" $(cd "$tree" && find . -name '*.so' | cut -c2-)
  cp "$cache/busybox" "$tree/bin/busybox"
  for name in sh cat cp grep tee mkdir rm mv ls env sed head tail sleep dirname basename nproc uname timeout seq dmesg ln mktemp id; do
    ln -sf /bin/busybox "$tree/bin/$name"
  done
  ln -sf /bin/busybox "$tree/usr/bin/env"
  # cylinders of 16 heads and 63 sectors: bochs wants whole ones
  truncate -s $((2000 * 516096)) "$run/root.img"
  mke2fs -q -F -t ext4 -O ^has_journal -d "$tree" "$run/root.img" 2>"$run/mke2fs.log" \
    || { cat "$run/mke2fs.log" >&2; exit 4; }
  rm -rf "$tree" "$cache"/intel-root-*.img
  mv "$run/root.img" "$disk"
}

# What changes from run to run: the project and the command, as an archive on the disk that the results come out on. Not the Debians
# and their disks, which are larger than it. DWCVMM_TESTBED_GUESTS: names of the directories of
# build/guests that go in, if not all; the emulated machine has to unpack them.
make_exchange_disk() {
  local guest place without=()
  for guest in "$root"/build/guests/*/; do
    guest=$(basename "$guest")
    case " ${DWCVMM_TESTBED_GUESTS-$guest} " in *" $guest "*) ;; *) without+=(--exclude=".$root/build/guests/$guest") ;; esac
  done
  mkdir -p "$run/in/run-testbed"
  mv "$run/command" "$run/root" "$run/in/run-testbed/"
  for place in .git .venv build/testbed '.*_cache' build/debian build/compile build/benchmarks build/guests/debian build/guests/workloads; do
    without+=(--exclude=".$root/$place")
  done
  tar c -C / --exclude='*/packages' --exclude='*.deb' "${without[@]}" ".$root" -C "$run/in" ./run-testbed >"$run/exchange.img"
  truncate -s ">$((130 * 516096))" "$run/exchange.img"
  truncate -s %516096 "$run/exchange.img"
}

testbed_run() {
  make_root_disk
  cp --reflink=auto --sparse=always "$disk" "$run/root.img"
  make_exchange_disk
  cat >"$run/bochsrc" <<CONFIG
config_interface: textconfig
display_library: nogui
cpu: model=corei7_skylake_x, count=1, ips=1000000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=2048, host=2048
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path=$run/root.img, mode=flat
ata0-slave: type=disk, path=$run/exchange.img, mode=flat
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path=$cache/intel.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$run/output
com2: enabled=1, mode=file, dev=$run/console
log: $run/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
clock: sync=none, time0=$(date +%s)
CONFIG
  ${pmu:+env "BOCHS_PMU=$pmu"} "$bochs" -q -f "$run/bochsrc" >"$run/bochs.out" 2>&1 &
}

# What came back: the exit code, and the files of build/ that are new. newc: not the archive that went in, if the machine died.
testbed_finish() {
  mkdir -p "$run/result"
  (cd "$run/result" && cpio --quiet -idm -H newc <"$run/exchange.img" 2>/dev/null) || return 0
  [ -s "$run/result/exit-code" ] && mv "$run/result/exit-code" "$run/exit-code"
  [ ! -d "$run/result/build" ] || cp -a "$run/result/build/." "$root/build/"
}
