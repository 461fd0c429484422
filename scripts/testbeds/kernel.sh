# Debian's full kernel and an initramfs of busybox, modules and one script. Sourced by scripts/testbed.

# unpack_kernel TREE: the kernel package and busybox, downloaded once
unpack_kernel() {
  local tree=$1
  fetch_package "$cache" "$(kernel_package linux-image-amd64)" "$tree"
  fetch_package "$cache" busybox-static "$tree"
  depmod -b "$tree" "$(ls "$tree/lib/modules")"
}

# module_closure TREE NAME ...: file names of modules and what they need, in the order to load them
module_closure() {
  local tree=$1 dep
  dep=$(echo "$tree"/lib/modules/*/modules.dep)
  shift
  for name in "$@"; do
    # modules.dep names what a module needs behind it, the last one to be loaded first
    awk -v "name=$name" '{ split($1, path, ":"); file = path[1]; sub(".*/", "", file) }
      file == name ".ko" || file == name ".ko.xz" { for (i = NF; i > 1; i--) print $i; print path[1] }' "$dep"
  done | awk '!seen[$0]++'
}

# make_initramfs TREE INIT FILE MODULE ...: names of modules that are built in are skipped
make_initramfs() {
  local tree=$1 init=$2 file=$3 top=$cache/initramfs path
  shift 3
  need cpio cpio
  rm -rf "$top" && mkdir -p "$top"/{bin,dev,proc,sys,lower,upper,new,modules}
  cp "$tree/bin/busybox" "$top/bin/"
  install -m 755 "$init" "$top/init"
  for path in $(module_closure "$tree" "$@"); do
    cp "$tree"/lib/modules/*/"$path" "$top/modules/"
    basename "$path" >>"$top/modules/order"
  done
  (cd "$top" && find . | cpio --quiet -o -H newc) >"$file"
  rm -rf "$top"
}

# guest_with_modules FOLDER OUT MODULE ...: vmlinuz, and initramfs.cpio of FOLDER/init and these modules, in OUT, unless they are there
guest_with_modules() {
  local folder=$1 out=$2 cache=$2/packages
  shift 2
  mkdir -p "$cache"
  [ "$out/initramfs.cpio" -nt "$folder/init" ] && [ "$out/initramfs.cpio" -nt "$folder/build.sh" ] && return
  need depmod kmod
  rm -rf "$out/tree" # of a build that was interrupted
  unpack_kernel "$out/tree"
  cp "$out"/tree/boot/vmlinuz-* "$out/vmlinuz"
  make_initramfs "$out/tree" "$folder/init" "$out/initramfs.cpio" "$@"
  rm -rf "$out/tree"
}
