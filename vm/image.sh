# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What a VM boots, sourced by run.sh: the kernel in the form that starts
# quickest, and the initramfs.  That is two archives in a row: one with init,
# busybox and KVM, kept in build/vm, and one with what this run adds.

# Build the target of path $1 by the command that follows if one of the files
# in the array INPUTS is newer.  The command writes to the path it is given.
INPUTS=()
update() {
	local target=$1 input

	shift
	for input in "${INPUTS[@]}"; do
		if [[ ! -e $target || $input -nt $target ]]; then
			"$@" "$target.$$"
			mv "$target.$$" "$target"
			return
		fi
	done
}

build_init() {
	gcc -O2 -Wall -static -o "$1" "$VM_DIR/init.c"
}

# QEMU starts an uncompressed kernel directly if that was built with PVH:
# emulated, unpacking costs a bzImage 1.5 s.
build_kernel() {
	local extract

	extract=$(find "$BUILD/base" -maxdepth 3 -name extract-vmlinux -print -quit)
	if [[ -z $extract ]] || ! "$extract" "$BZIMAGE" >"$1" ||
		! readelf -nW "$1" | grep -q Xen; then
		cp "$BZIMAGE" "$1"
	fi
}

# The file of module $1: KVM's are those asked for, all others the kernel's.
module_file() {
	local pattern=${1//[-_]/[-_]}

	case $1 in
	kvm*) find "$MODULES" -maxdepth 1 -name "$pattern.ko" ;;
	*) find "$HOST" -name "$pattern.ko" -o -name "$pattern.ko.xz" ;;
	esac
}

# Ours come without debug information: it would only make the image large.
unpack_module() {
	local from=$1 to=$2

	case $from in
	*.xz) xz -dc "$from" >"$to" ;;
	*) strip --strip-debug -o "$to" "$from" ;;
	esac
}

# Put module $2 behind those it depends on into root $1 and into load list $3.
add_module() {
	local root=$1 name=$2 list=$3 file dep deps to

	to=/modules/${name//-/_}.ko
	[[ ! -e $root$to ]] || return 0
	read -r file < <(module_file "$name") || return 1
	deps=$(modinfo -F depends "$file") || die "$ERROR" "cannot read $file"
	for dep in ${deps//,/ }; do
		add_module "$root" "$dep" "$list" ||
			die "$ERROR" "module $dep, which $name needs, is not in $HOST"
	done
	unpack_module "$file" "$root$to" || die "$ERROR" "cannot read $file"
	echo "$to" >>"$list"
}

# What is the same in all runs: init, tools, modules.
build_base_image() {
	local root=$RUN/base applet name

	mkdir -p "$root"/{bin,dev,etc,jobs,mnt,modules,proc,sys,test,tmp}
	chmod 1777 "$root/tmp"
	cp "$BUILD/vm/init" "$root/init"
	cp "$(command -v busybox)" "$root/bin/busybox"
	for applet in $(busybox --list); do
		[[ $applet = busybox ]] || ln -s busybox "$root/bin/$applet"
	done
	echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
	# The selftests' library shows call chains with it.
	add_program "$(command -v addr2line)" "$root" >/dev/null

	touch "$root"/modules/{common,svm,vmx}.list
	add_module "$root" kvm "$root/modules/common.list" ||
		die "$ERROR" "no kvm.ko in $MODULES: run make modules"
	# Built into some kernels, so a missing one is no error.
	for name in msr hwpoison-inject brd; do
		add_module "$root" "$name" "$root/modules/common.list" || true
	done
	add_module "$root" kvm-amd "$root/modules/svm.list" ||
		die "$ERROR" "no kvm-amd.ko in $MODULES: run make modules"
	add_module "$root" kvm-intel "$root/modules/vmx.list" ||
		die "$ERROR" "no kvm-intel.ko in $MODULES: run make modules"

	pack "$root" >"$1"
}

# Directory $1 as an initramfs.
pack() {
	(cd "$1" && find . -mindepth 1 | cpio -o -H newc -R 0:0 --quiet)
}

# Put file $1 into root $2 as $3.
add_file() {
	local src=$1 root=$2 dst=$3

	[[ -r $src ]] || die "$ERROR" "no such file: $src"
	mkdir -p "$root$(dirname "$dst")"
	cp -L "$src" "$root$dst"
}

# Put program $1 into root $2's /test and its libraries where they are here.
# Print the name it is called by in the VM.
add_program() {
	local prog=$1 root=$2 lib

	if [[ $prog != */* ]]; then
		echo "$prog"
		return
	fi
	add_file "$prog" "$root" "/test/$(basename "$prog")"
	while read -r lib; do
		add_file "$lib" "$root" "$lib"
	done < <(ldd "$prog" 2>/dev/null | grep -oE '/[^ ]+' || true)
	echo "/test/$(basename "$prog")"
}

# Write job $2 into root $1: time limit $3, then the program and its arguments.
# The VM runs jobs by number.
JOB_NR=1000
add_job() {
	local root=$1 name=$2 seconds=$3 prog=$4

	shift 4
	prog=$(add_program "$prog" "$root")
	mkdir -p "$root/jobs"
	printf '%s\0' "$seconds" "$prog" "$@" >"$root/jobs/$JOB_NR.$name"
	JOB_NR=$((JOB_NR + 1))
}

# Each job of file $1.
add_jobs() {
	local file=$1 root=$2 name seconds words

	while read -r name seconds words; do
		[[ -n $name ]] || continue
		# shellcheck disable=SC2086 # words of a list
		add_job "$root" "$name" "$seconds" $words
		LIMIT=$((LIMIT + seconds))
	done <"$file"
}

build_run_image() {
	local root=$RUN/root spec src

	mkdir -p "$root"
	if [[ -n $SHELL_OPT ]]; then
		add_job "$root" shell 0 sh -l
	elif [[ -n $JOBS ]]; then
		add_jobs "$JOBS" "$root"
	else
		add_job "$root" main "$SECONDS_OPT" "$@"
		LIMIT=$SECONDS_OPT
	fi
	for spec in "${FILES[@]}"; do
		src=${spec%%:*}
		[[ $spec = *:* ]] && spec=${spec#*:} || spec=/test/$(basename "$src")
		add_file "$src" "$root" "$spec"
	done
	pack "$root"
}

build_images() {
	mkdir -p "$BUILD/vm" "$BUILD/logs"
	IMAGE=$BUILD/vm/kernel-$VERSION
	INITRD=$BUILD/vm/$VERSION-$MODULES_OPT.cpio

	INPUTS=("$VM_DIR/init.c")
	update "$BUILD/vm/init" build_init
	INPUTS=("$BZIMAGE")
	update "$IMAGE" build_kernel
	INPUTS=("$BUILD/vm/init" "$VM_DIR/image.sh" "$MODULES"/*.ko)
	update "$INITRD" build_base_image
	build_run_image "$@" >"$RUN/run.cpio"
	cat "$INITRD" "$RUN/run.cpio" >"$RUN/initrd"
}
