#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run a program in a VM whose kernel has this project's KVM modules loaded.

set -euo pipefail

# modinfo is there, and not everybody's PATH has it.
PATH+=:/usr/sbin:/sbin

VM_DIR=$(dirname "$(realpath "$0")")
TOP=$(dirname "$VM_DIR")
BUILD=$TOP/build
RUN=

# shellcheck source=vm/check.sh
source "$VM_DIR/check.sh"
# shellcheck source=vm/image.sh
source "$VM_DIR/image.sh"

# run.sh's own exit statuses.  Any other is the program's.
ERROR=120
SPLAT=121
TIMEOUT=122
PANIC=123
LOST=124
LEAK=125

# Added to a program's time limit: for boot, checks and power-off.
BOOT_SECONDS=120

usage() {
	cat <<-EOF
	Usage: vm/run.sh [OPTION]... -- PROG [ARG]...
	       vm/run.sh [OPTION]... --shell

	Boot a VM, load KVM, run PROG as root, show its output and exit with its
	status (128 + N when signal N killed it).  A PROG with a slash is a program
	of this machine and travels into the VM with its shared libraries; one
	without is a command of the VM (busybox has most: sh, cat, ls ...).

	  --modules NAME          KVM: ours (default), base (the unmodified one) or
	                          model (ours with the ownership model)
	  --kernel stock|debug|kcsan|coverage|7
	                          Debian's kernel (default); one with KASAN, lockdep,
	                          kmemleak and the model ('ours' only); one with
	                          KCSAN; one with gcov and the model; or the
	                          unmodified Linux 7 with its own modules
	  --flavour NAME          stock: cloud-amd64 (default) or amd64
	  --cpus N                default 1
	  --mem M                 MiB, default 2048
	  --timeout S             seconds PROG may take, default 300
	  --accel tcg|kvm         default: kvm if this machine has it, else tcg
	  --icount                count instructions as time: repeatable to 0.1%
	                          (one CPU, tcg, slower)
	  --append WORDS          add to the kernel's command line, or, as KVM's modules'
	                          parameters: kvm_amd.npt=0
	  --file SRC[:DST]        take a file along, to /test or to DST; repeatable
	  --log NAME              the kernel's console goes to build/logs/NAME.console.log
	                          (default: PROG's name)
	  --jobs FILE             run many programs in turn, one a line:
	                          NAME SECONDS PROG [ARG]...
	  --verdict FILE          with --jobs: the VM's verdicts (see vm/init.c)
	  --shell                 an interactive shell instead of PROG

	In the VM: PROG and files in /test, busybox's commands in /bin; /proc, /sys,
	debugfs, tracefs and cgroup2 mounted.  A program passes only if the machine
	does: after it, no reference to KVM, no unevictable memory may be left, the
	ownership model must be empty and content, and the modules must unload.

	Exit status beside PROG's own, with the reason on stderr:
	  $ERROR  the VM could not be built or started
	  $SPLAT  the kernel complained (vm/splats.deny)
	  $TIMEOUT  PROG did not end in time, or the VM hung
	  $PANIC  the kernel panicked
	  $LOST  the VM ended without a verdict
	  $LEAK  something was left behind, or KVM could not be unloaded

	Environment: BASE (e.g. 6.12.117) picks one of several kernels in build/;
	default: the newest.
	EOF
}

die() {
	local status=$1

	shift
	echo "run.sh: $*" >&2
	exit "$status"
}

cleanup() {
	[[ -z $RUN ]] || rm -rf "$RUN"
}

# Make target $1 if $2 is not there; the caller looks once more.
need() {
	local target=$1 file=$2

	[[ -n $file && -e $file ]] && return
	echo "run.sh: make $target" >&2
	# shellcheck disable=SC2086 # a target may come with variables
	make -s -C "$TOP" $target >&2 || die $ERROR "make $target failed: see above"
}

# The newest entry of build/$1 that matches regular expression $2, or nothing.
newest() {
	find -H "$BUILD/$1" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null |
		grep -E "^$2\$" | sort -V | tail -1 || true
}

# Set BZIMAGE, MODULES (KVM's directory) and HOST (all other modules'), and
# VERSION, a name for the kernel; build what is missing.
find_stock() {
	local goal name="${BASE:-[0-9.]+}\\+[^-]+-$FLAVOUR"

	case $MODULES_OPT in
	ours) goal=modules ;;
	base) goal=modules-base ;;
	model) goal="modules MODEL=1" ;;
	esac
	VERSION=$(newest host "$name")
	need "$goal FLAVOUR=$FLAVOUR" \
		"${VERSION:+$BUILD/modules/$VERSION/$MODULES_OPT/kvm.ko}"
	VERSION=$(newest host "$name")
	HOST=$BUILD/host/$VERSION
	MODULES=$BUILD/modules/$VERSION/$MODULES_OPT
	BZIMAGE=$(find "$HOST/boot" -name 'vmlinuz-*' -print -quit)
}

find_debug() {
	find_built "${BASE:-[0-9.]+}-debug" "kernel CONFIG=debug"
}

find_kcsan() {
	find_built "${BASE:-[0-9.]+}-kcsan" "kernel CONFIG=kcsan"
}

find_coverage() {
	find_built "${BASE:-[0-9.]+}-coverage" "kernel CONFIG=coverage"
}

find_7() {
	find_built "7[0-9.]+-kernel" kernel-7
}

# The newest kernel in build/kernel that matches $1; make target $2 builds it.
find_built() {
	local name=$1 goal=$2

	[[ $MODULES_OPT = ours ]] ||
		die $ERROR "--kernel $KERNEL has its own modules: drop --modules $MODULES_OPT"
	VERSION=$(newest kernel "$name")
	need "$goal" "${VERSION:+$BUILD/kernel/$VERSION/arch/x86/boot/bzImage}"
	VERSION=$(newest kernel "$name")
	HOST=$BUILD/kernel/$VERSION/ko
	MODULES=$HOST
	BZIMAGE=$BUILD/kernel/$VERSION/arch/x86/boot/bzImage
}

default_accel() {
	if [[ -w /dev/kvm ]] && grep -qwE 'svm|vmx' /proc/cpuinfo; then
		echo kvm
	else
		echo tcg
	fi
}

# Set QEMU to the command line.
qemu_command() {
	local append

	append="console=ttyS0 printk.time=1 panic=-1 reboot=t panic_on_warn=1 oops=panic"
	append+=" softlockup_panic=1 watchdog_thresh=30 nmi_watchdog=0"
	append+=" sysctl.kernel.hung_task_panic=1"
	append+=" rcupdate.rcu_cpu_stall_timeout=60"
	append+=" tsc=reliable no_timer_check mitigations=off init_on_alloc=0"
	append+=" $APPEND"
	[[ -z $SHELL_OPT ]] || append+=" interactive=1"
	[[ -z $JOBS ]] || append+=" marks=1"
	[[ -z $ICOUNT ]] || append+=" settle=1"

	QEMU=(qemu-system-x86_64 -nodefaults -no-user-config -display none
		-machine pc -no-reboot -m "$MEM" -smp "$CPUS"
		-kernel "$IMAGE" -initrd "$RUN/initrd" -append "$append"
		-chardev "file,id=console,path=$RUN/console" -serial chardev:console
		-chardev "$OUTPUT" -serial chardev:output
		-chardev "file,id=verdict,path=$RUN/verdict" -serial chardev:verdict)

	# With a thread for each CPU, one may run a stale breakpoint of code that
	# another is patching ("Oops: int3"); and where CPUs are few, it is slower.
	if [[ -n $ICOUNT ]]; then
		QEMU+=(-accel "tcg,thread=single" -cpu "max,-erms,-fsrm"
			-icount "shift=0,sleep=off" -seed 1
			-rtc "base=2026-01-01T00:00:00,clock=vm")
	elif [[ $ACCEL = tcg ]]; then
		QEMU+=(-accel "tcg,thread=single" -cpu max)
	else
		QEMU+=(-accel kvm -cpu host)
	fi
}

# Boot with the programs' output on stdout as it comes.  It goes by way of a
# file: QEMU drops what a slow reader of a pipe does not take.
boot() {
	local pid tail status=0

	OUTPUT=file,id=output,path=$RUN/output
	qemu_command
	touch "$RUN/output"
	timeout -k 5 $((LIMIT + BOOT_SECONDS)) "${QEMU[@]}" </dev/null >"$RUN/qemu" 2>&1 &
	pid=$!
	trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
	tail -f -n +1 -s 0.1 --pid="$pid" "$RUN/output" &
	tail=$!
	wait "$pid" || status=$?
	trap - INT TERM
	wait "$tail"
	return $status
}

boot_shell() {
	OUTPUT=stdio,id=output,signal=off
	qemu_command
	echo "A shell in the VM; 'exit' ends it, Ctrl-D too." >&2
	"${QEMU[@]}"
}

panic_line() {
	grep -ao -m1 'Kernel panic - not syncing.*' "$RUN/console.log"
}

# The first leaks that the VM reported of job $1.
leaks() {
	grep -a -m3 "^leak $1 " "$RUN/verdict" | cut -d' ' -f3- | paste -sd';'
}

# Why this boot failed as a whole: exit, or return if it did not.
judge_boot() {
	local status=$1 first

	first=$(splats "$RUN/console.log" | head -1)
	if [[ ! -s $RUN/console.log ]]; then
		cat "$RUN/qemu" >&2
		die $ERROR "QEMU did not start the VM (status $status)"
	elif [[ -n $(panic_line) ]]; then
		die $PANIC "panic: $(panic_line) (first: $first; see $CONSOLE)"
	elif grep -aq '^leak - ' "$RUN/verdict"; then
		die $LEAK "leak: $(leaks -) (see $CONSOLE)"
	elif [[ -n $first ]]; then
		die $SPLAT "kernel splat: $first (see $CONSOLE)"
	elif [[ $status = 124 || $status = 137 ]]; then
		die $TIMEOUT "timeout: the VM did not end in $((LIMIT + BOOT_SECONDS)) s (see $CONSOLE)"
	elif grep -aq '^error ' "$RUN/verdict"; then
		die $ERROR "the VM could not be set up: $(grep -a -m1 '^error ' "$RUN/verdict")"
	elif ! grep -aqx end "$RUN/verdict"; then
		die $LOST "lost verdict: the VM ended in mid-run (see $CONSOLE)"
	fi
}

# Exit as the one program did.
judge_program() {
	local kind value

	read -r _ _ kind value < <(grep -a '^result ' "$RUN/verdict") ||
		die $LOST "lost verdict: the VM reported no result (see $CONSOLE)"
	case $kind in
	timeout | stuck)
		die $TIMEOUT "timeout: the program did not end in $SECONDS_OPT s (stacks in $CONSOLE)" ;;
	signal)
		die $((128 + value)) "signal $value killed the program" ;;
	esac
	if ((value == 0)) && grep -aq '^leak main ' "$RUN/verdict"; then
		die $LEAK "leak: $(leaks main) (see $CONSOLE)"
	fi
	exit "$value"
}

parse_options() {
	MODULES_OPT=ours KERNEL=stock FLAVOUR=${FLAVOUR:-cloud-amd64} CPUS=1 MEM=2048
	SECONDS_OPT=300 ACCEL=$(default_accel) ICOUNT='' APPEND='' FILES=() LOG='' JOBS=''
	VERDICT='' SHELL_OPT='' LIMIT=0

	while (($#)); do
		case $1 in
		--icount) ICOUNT=1 ;;
		--shell) SHELL_OPT=1 ;;
		--help | -h) usage; exit 0 ;;
		--)
			shift
			break ;;
		--modules | --kernel | --flavour | --cpus | --mem | --timeout | \
		--accel | --append | --file | --log | --jobs | --verdict)
			(($# > 1)) || die $ERROR "$1 needs a value: see --help"
			set_option "$1" "$2"
			shift ;;
		*) die $ERROR "unknown option $1: put -- before the program, or see --help" ;;
		esac
		shift
	done
	PROGRAM=("$@")
	check_options
}

set_option() {
	local value=$2

	case $1 in
	--modules) MODULES_OPT=$value ;;
	--kernel) KERNEL=$value ;;
	--flavour) FLAVOUR=$value ;;
	--cpus) CPUS=$value ;;
	--mem) MEM=$value ;;
	--timeout) SECONDS_OPT=$value ;;
	--accel) ACCEL=$value ;;
	--append) APPEND=$value ;;
	--file) FILES+=("$value") ;;
	--log) LOG=$value ;;
	--jobs) JOBS=$value ;;
	--verdict) VERDICT=$value ;;
	esac
}

# $2 must be one of the words that follow.
check_word() {
	local option=$1 value=$2 words=" ${*:3} "

	[[ $words = *" $value "* ]] || die $ERROR "$option $value: must be one of:$words"
}

check_options() {
	check_word --modules "$MODULES_OPT" ours base model
	check_word --kernel "$KERNEL" stock debug kcsan coverage 7
	check_word --flavour "$FLAVOUR" cloud-amd64 amd64
	check_word --accel "$ACCEL" tcg kvm
	[[ "$CPUS $MEM $SECONDS_OPT" =~ ^[0-9]+\ [0-9]+\ [0-9]+$ ]] ||
		die $ERROR "--cpus, --mem and --timeout take numbers"
	[[ -z $ICOUNT || $CPUS = 1 ]] || die $ERROR "--icount works with one CPU: drop --cpus"
	[[ -n $SHELL_OPT || -n $JOBS || ${#PROGRAM[@]} -gt 0 ]] ||
		die $ERROR "no program given: see --help"
	[[ ${PROGRAM[0]:-} != */* || -x ${PROGRAM[0]} ]] ||
		die $ERROR "no such program: ${PROGRAM[0]}"
	LOG=${LOG:-$(basename "${PROGRAM[0]:-shell}")}
}

main() {
	local status=0

	parse_options "$@"
	"$VM_DIR/deps.sh" vm >&2

	mkdir -p "$BUILD/vm"
	RUN=$(mktemp -d "$BUILD/vm/run.XXXXXX")
	trap cleanup EXIT
	"find_$KERNEL"
	build_images "${PROGRAM[@]}"
	: >"$RUN/verdict"

	if [[ -n $SHELL_OPT ]]; then
		boot_shell || status=$?
	else
		boot || status=$?
	fi

	CONSOLE=$BUILD/logs/$LOG.console.log
	tr -d '\r' <"$RUN/console" >"$RUN/console.log"
	cp "$RUN/console.log" "$CONSOLE"
	[[ -z $VERDICT ]] || cp "$RUN/verdict" "$VERDICT"
	judge_boot "$status"
	[[ -n $JOBS ]] || judge_program
}

main "$@"
