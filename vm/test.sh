#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the tests of tests.cfg in the VM, and the tests of the VM itself, and
# count their results.

set -euo pipefail

VM_DIR=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
TOP=$(dirname "$VM_DIR")
BUILD=$TOP/build

# shellcheck source=vm/check.sh
source "$VM_DIR/check.sh"
# shellcheck source=vm/batch.sh
source "$VM_DIR/batch.sh"

# An emulated kernel with KASAN and lockdep is this many times slower.
DEBUG_SLOWDOWN=6

# To print the counts of a boot on the coverage kernel, and to tell KCSAN what it
# need not report.
GCOV_SECONDS=60
KCSAN_SECONDS=60

# What --small has on all command lines.
SMALL_FOLIOS=kvm.gmem_huge_folios=0

usage() {
	cat <<-EOF
	Usage: make test [T=REGEX] [KERNEL=stock|debug|kcsan|coverage] [MODULES=ours|base|model] [SMALL=1]
	   or: vm/test.sh [--kernel stock|debug|kcsan|coverage] [--modules ours|base|model] [--small] [REGEX]

	Run the tests of vm/tests.cfg whose names match REGEX, in as few boots as
	they allow, at once as many as there are processors, but one after the other
	those that measure time.  Logs go to build/logs/KERNEL-MODULES/, into a
	directory for each kind of machine.  With the stock kernel and this project's
	modules, vm/test/*_test.sh, the tests of the harness itself, run first.

	With --small, those tests run without huge folios that always have them where
	they can.

	A test passes only if its verdict arrives, it exits 0, its KTAP plan is
	complete without a failure, the kernel does not complain, and nothing is left
	behind.  Exit status: 0 if no test failed.
	EOF
}

# Read tests.cfg: NAMES in its order; a test's settings by "NAME.KEY".
NAMES=()
declare -A CFG
read_config() {
	local line name='' key value

	while IFS= read -r line; do
		line=${line%%#*}
		if [[ $line =~ ^\[([a-z0-9_]+)\] ]]; then
			name=${BASH_REMATCH[1]}
			NAMES+=("$name")
		elif [[ $line =~ ^([a-z]+)\ *=\ *(.*[^ ]) ]]; then
			key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
			CFG[$name.$key]=$value
		elif [[ -n ${line//[[:space:]]/} ]]; then
			echo "test.sh: tests.cfg: cannot read '$line'" >&2
			return 1
		fi
	done <"$VM_DIR/tests.cfg"
}

# Setting $2 of test $1, by default $3.
config() {
	echo "${CFG[$1.$2]:-${3:-}}"
}

# The selected VM tests that run with this kernel: SELECTED.
SELECTED=()
select_tests() {
	local name kernels like=$KERNEL

	# The one has what the debug kernel has, but for the checkers; the other
	# runs what needs neither Debian's kernel nor the ownership model.
	case $KERNEL in
	coverage) like=debug ;;
	kcsan) like="stock debug" ;;
	esac
	for name in "${NAMES[@]}"; do
		kernels=" $(config "$name" kernel "stock debug") "
		if [[ $SMALL && $(config "$name" append) = *"$SMALL_FOLIOS"* ]]; then
			continue
		fi
		if [[ $name =~ $PATTERN && $kernels = *" $like "* ]]; then
			SELECTED+=("$name")
		fi
	done
}

# The tests of the harness: HOST_TESTS.
HOST_TESTS=()
select_host_tests() {
	local file

	[[ $KERNEL = stock && $MODULES = ours && -z $SMALL ]] || return 0
	for file in "$VM_DIR"/test/*_test.sh; do
		if [[ $(basename "$file" .sh) =~ $PATTERN ]]; then
			HOST_TESTS+=("$file")
		fi
	done
}

# Build what the selected tests need.
build() {
	local goals=(selftests)

	if [[ $KERNEL != stock ]]; then
		goals+=(kernel CONFIG="$KERNEL")
	elif [[ $MODULES = base ]]; then
		goals+=(modules-base)
	elif [[ $MODULES = model ]]; then
		goals+=(modules MODEL=1)
	else
		goals+=(modules)
	fi
	make -s -C "$TOP" "${goals[@]}"
}

run_host_test() {
	local file=$1 name

	name=$(basename "$file" .sh)
	BEGUN=$((BEGUN + 1))
	echo "[$BEGUN/$TOTAL] $name"
	{
		"$file" 2>&1 && echo "exit 0" >"$OUT/$name.result" ||
			echo "exit $?" >"$OUT/$name.result"
	} | tee "$OUT/$name.log"
	count_results "$OUT/$name.log" "$(<"$OUT/$name.result")"
	add_up "$name"
}

# The job after those of each machine.
LAST_JOB=

# The job lines, for run.sh --jobs, of the selected tests that want machine $1
# ("CPUS MEM ALONE [APPEND]").
job_lines() {
	local machine=$1 name seconds

	[[ -z $FIRST_JOB ]] || echo "$FIRST_JOB"
	for name in "${SELECTED[@]}"; do
		[[ $(machine_of "$name") = "$machine" ]] || continue
		seconds=$(config "$name" timeout 60)
		[[ $KERNEL = stock ]] || seconds=$((seconds * DEBUG_SLOWDOWN))
		echo "$name $seconds $BUILD/selftests/ours/$(config "$name" file "$name")" \
			"$(config "$name" args)"
	done
	[[ -z $LAST_JOB ]] || echo "$LAST_JOB"
}

machine_of() {
	local append

	append=$(config "$1" append)
	[[ -z $SMALL ]] || append+=${append:+ }$SMALL_FOLIOS
	echo "$(config "$1" cpus 1) $(config "$1" mem 2048)" \
		"$(config "$1" alone no)${append:+ $append}"
}

# The machines that the selected tests want, the busiest first, and those to run
# alone last.
machines() {
	local name

	for name in "${SELECTED[@]}"; do
		machine_of "$name"
	done | sort | uniq -c | sort -rn | sed 's/^ *[0-9]* //' | sort -s -k 3,3
}

# Run the jobs of $1/jobs on machine $2.
run_machine() {
	local out=$1 cpus mem append

	read -r cpus mem _ append <<<"$2"
	run_batch "$out" "$out/jobs" --kernel "$KERNEL" --modules "$MODULES" \
		--cpus "$cpus" --mem "$mem" --append "$append"
}

# An emulated machine keeps one processor busy.
run_vm_tests() {
	local machines nr i

	mapfile -t machines < <(machines)
	nr=$(printf '%s\n' "${machines[@]}" | grep -cv '^[0-9]* [0-9]* yes' || true)
	LANES=$((nr < $(nproc) ? nr : $(nproc)))

	# To be able to end each with what it started.
	PIDS=()
	set -m
	trap 'end_machines; exit 130' INT TERM
	for i in "${!machines[@]}"; do
		if ((i >= nr)); then
			wait
			LANES=1
		elif ((i >= LANES)); then
			wait -n || true
		fi
		mkdir -p "$OUT/$i"
		job_lines "${machines[i]}" >"$OUT/$i/jobs"
		run_machine "$OUT/$i" "${machines[i]}" </dev/null &
		PIDS+=($!)
		BEGUN=$((BEGUN + $(wc -l <"$OUT/$i/jobs")))
	done
	wait
	trap - INT TERM
	set +m

	for i in "${!machines[@]}"; do
		judge_machine "$OUT/$i" "${machines[i]}"
	done
}

PIDS=()
end_machines() {
	local pid

	for pid in "${PIDS[@]}"; do
		kill -TERM -- "-$pid" 2>/dev/null || true
	done
}

# Take over what machine $2 left in directory $1, and count it.
judge_machine() {
	local out=$1 name

	while read -r name _; do
		judge_job "$out/$name"
		add_up "$name"
	done <"$out/jobs"
	add_up_machine "$out" "$2"
}

# Add test $1's counts to the sums, and its failures to the list.
SUM_PASSED=0 SUM_FAILED=0 SUM_SKIPPED=0 FAILURES=()
add_up() {
	local name=$1 reason

	SUM_PASSED=$((SUM_PASSED + PASSED))
	SUM_FAILED=$((SUM_FAILED + FAILED))
	SUM_SKIPPED=$((SUM_SKIPPED + SKIPPED))
	for reason in "${REASONS[@]}"; do
		FAILURES+=("$name: $reason")
	done
}

# What a boot of machine $2 did wrong that is no test's fault.
add_up_machine() {
	local result=$1/machine.result machine=$2 reason

	[[ -e $result ]] || return 0
	while read -r reason; do
		FAILURES+=("machine ($machine): $reason")
		SUM_FAILED=$((SUM_FAILED + 1))
	done <"$result"
}

parse_options() {
	KERNEL=stock MODULES=ours SMALL='' PATTERN=.
	while (($#)); do
		case $1 in
		--kernel) KERNEL=$2; shift ;;
		--modules) MODULES=$2; shift ;;
		--small) SMALL=1 ;;
		--help | -h) usage; exit 0 ;;
		-*) usage >&2; exit 2 ;;
		*) PATTERN=$1 ;;
		esac
		shift
	done
}

main() {
	local file before

	parse_options "$@"
	OUT=$BUILD/logs/$KERNEL-$MODULES${SMALL:+-small}
	read_config
	select_tests
	select_host_tests
	TOTAL=$((${#HOST_TESTS[@]} + ${#SELECTED[@]}))
	if ((TOTAL == 0)); then
		echo "test.sh: no test matches '$PATTERN': see vm/tests.cfg" >&2
		exit 1
	fi

	build
	open_logs "$OUT"
	if [[ $KERNEL = coverage ]]; then
		LAST_JOB="gcov $GCOV_SECONDS $VM_DIR/gcov.sh"
	elif [[ $KERNEL = kcsan ]]; then
		FIRST_JOB="kcsan $KCSAN_SECONDS $VM_DIR/kcsan.sh"
	fi
	for file in "${HOST_TESTS[@]}"; do
		run_host_test "$file"
	done
	before=$SUM_PASSED
	run_vm_tests
	# Each test may be skipped for want of something, but not all of them.
	if [[ $PATTERN = . ]] && ((SUM_PASSED == before)); then
		FAILURES+=("all: nothing passed in a machine")
		SUM_FAILED=$((SUM_FAILED + 1))
	fi

	((${#FAILURES[@]} == 0)) || printf 'FAILED %s\n' "${FAILURES[@]}"
	echo "$SUM_PASSED passed, $SUM_FAILED failed, $SUM_SKIPPED skipped"
	((SUM_FAILED == 0))
}

# The harness's own tests source this file.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
