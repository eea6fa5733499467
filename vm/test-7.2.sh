#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run Linux 7's own tests of guest_memfd, unmodified, on its own kernel and on
# 6.12, with the unmodified modules and with this project's: what passes there
# must pass here.

set -euo pipefail

VM_DIR=$(dirname "$(realpath "$0")")
TOP=$(dirname "$VM_DIR")
BUILD=$TOP/build

# shellcheck source=vm/check.sh
source "$VM_DIR/check.sh"
# shellcheck source=vm/batch.sh
source "$VM_DIR/batch.sh"

# The machine.
CPUS=1
MEM=4096

# Each test's name, seconds on an emulated CPU, source and arguments.  Those
# that end in _parts are in vm/test-7.2: they include one of Linux's to run it
# part by part.
TESTS="
guest_memfd_test		60	guest_memfd_test
guest_memfd_parts		60	guest_memfd_parts
set_memory_region_test		180	set_memory_region_test
set_memory_region_parts		180	set_memory_region_parts
pre_fault_memory_test		60	pre_fault_memory_test
private_mem_conversions_test	60	x86/private_mem_conversions_test
private_mem_kvm_exits_test	60	x86/private_mem_kvm_exits_test
mmu_stress_test			600	mmu_stress_test			-c 1 -m 1 -s 1
"

usage() {
	cat <<-EOF
	Usage: make test-7.2 [T=REGEX]
	   or: vm/test-7.2.sh [--without-kernel] [REGEX]

	Fetch the newest Linux 7 of Debian sid, build those of its selftests that
	are about guest_memfd, run the ones whose names match REGEX on its own kernel,
	on 6.12 with the unmodified modules and on 6.12 with ours, and print the three
	outcomes.  vm/test-7.2.skip lists what does not run on 6.12, and why.
	--without-kernel does not run them on Linux 7's kernel, which takes minutes to
	build the first time: none may fail then.

	Exit status: 0 if all that passes on Linux 7 and is not listed passes with ours.
	EOF
}

# The reason why test $1 does not run on 6.12, or nothing.
skip_reason() {
	sed -n "s/^$1[[:space:]]\+//p" "$VM_DIR/test-7.2.skip"
}

# Build the tests of Linux $1.
build_tests() {
	local tree=$BUILD/base/$1 sources

	sources=$(awk '{ print $3 }' <<<"$TESTS" | xargs)
	"$VM_DIR/deps.sh" selftests
	"$TOP/modules/selftests.sh" "$tree" "$BUILD/selftests-obj/$1" "$BUILD/selftests/$1" \
		TEST_PROGS_x86= TEST_GEN_PROGS_EXTENDED_x86= TEST_GEN_PROGS_x86="$sources" \
		VPATH="$VM_DIR/test-7.2" \
		EXTRA_CFLAGS="-g0 -I$tree/tools/testing/selftests/kvm" -j"$(nproc)"
}

# The results in KTAP log $1, a line each: NAME OUTCOME.
list_subtests() {
	tr -d '\0' <"$1" | sed -nE \
		-e 's/^ok [0-9]+ (- )?([^ ]+).*# SKIP.*/\2 skip/p; t' \
		-e 's/^ok [0-9]+ (- )?([^ ]+).*/\2 pass/p' \
		-e 's/^not ok [0-9]+ (- )?([^ ]+).*/\2 fail/p'
}

# Run the tests of directory $2 that match $3; run.sh's options follow.  Sets
# OUTCOME[SIDE ROW] to outcome and reason, with a row for each test and each of
# its results.
declare -A OUTCOME=()
run_side() {
	local side=$1 tests=$2 pattern=$3 out=$BUILD/logs/7.2-$1 name limit file args

	shift 3
	open_logs "$out"
	while read -r name limit file args; do
		[[ -n $name && $name =~ $pattern ]] || continue
		[[ $side = 7 || -z $(skip_reason "$name") ]] || continue
		echo "$name $limit $tests/${file##*/} $args"
	done <<<"$TESTS" >"$out/jobs"
	TOTAL=$(wc -l <"$out/jobs")
	BEGUN=0

	echo "== $TOTAL tests on $side"
	run_batch "$out" "$out/jobs" --cpus $CPUS --mem $MEM "$@"
	while read -r name _; do
		judge_job "$out/$name"
		OUTCOME[$side $name]=$(outcome)
		while read -r file args; do
			OUTCOME[$side $name $file]=$args
		done < <(list_subtests "$out/$name.log")
	done <"$out/jobs"
	if [[ -e $out/machine.result ]]; then
		OUTCOME[$side machine]="fail $(head -1 "$out/machine.result")"
	fi
}

# The rows of the table, for the tests that match $1.
list_rows() {
	local pattern=$1 name row

	while read -r name _; do
		[[ -n $name && $name =~ $pattern ]] || continue
		echo "$name"
		for row in "${!OUTCOME[@]}"; do
			[[ $row != *" $name "* ]] || echo "${row#* }"
		done | sort -u
	done <<<"$TESTS"
	for row in "${!OUTCOME[@]}"; do
		[[ $row != *" machine" ]] || echo machine
	done | sort -u
}

# Print the table; sets COUNT and the array MISSED.
declare -A COUNT=([pass]=0 [skip]=0)
MISSED=()
compare() {
	local version=$1 pattern=$2 row yardstick base ours reason

	printf '\n%-50s %-7s %-7s %-7s\n' TEST "$version" base ours
	while read -r row; do
		read -r yardstick _ <<<"${OUTCOME[7 $row]:--}"
		read -r base _ <<<"${OUTCOME[base $row]:--}"
		read -r ours reason <<<"${OUTCOME[ours $row]:--}"
		if [[ -n $(skip_reason "$row") ]]; then
			base=skip ours=skip reason=$(skip_reason "$row")
			COUNT[skip]=$((COUNT[skip] + 1))
		elif [[ $ours = pass ]]; then
			COUNT[pass]=$((COUNT[pass] + 1))
		elif [[ $yardstick = pass || $yardstick = - && $ours = fail ]]; then
			MISSED+=("$row: ${reason:-$ours}")
		else
			COUNT[skip]=$((COUNT[skip] + 1))
		fi
		printf '%-50s %-7s %-7s %-7s %s\n' "${row/#* /  }" "$yardstick" "$base" "$ours" "$reason"
	done < <(list_rows "$pattern")
}

main() {
	local kernel=1 pattern version tests

	case ${1:-} in
	--help | -h) usage; exit 0 ;;
	--without-kernel) kernel='' ; shift ;;
	esac
	pattern=${1:-.}
	if ! awk '{ print $1 }' <<<"$TESTS" | grep -v '^$' | grep -qE -- "$pattern"; then
		echo "test-7.2.sh: no test matches '$pattern': see --help" >&2
		exit 1
	fi

	version=$("$TOP/base/sid.sh")
	echo "test-7.2: the tests of Linux $version"
	make -s -C "$TOP" modules modules-base ${kernel:+kernel-7}
	tests=$BUILD/selftests/$version
	build_tests "$version"
	[[ -z $kernel ]] || run_side 7 "$tests" "$pattern" --kernel 7
	run_side base "$tests" "$pattern" --modules base
	run_side ours "$tests" "$pattern" --modules ours
	compare "$version" "$pattern"

	echo
	[[ -n $kernel ]] || echo "Linux $version's kernel was not asked: no test may fail"
	((${#MISSED[@]} == 0)) || printf 'MISSED %s\n' "${MISSED[@]}"
	echo "${COUNT[pass]} passed, ${#MISSED[@]} failed, ${COUNT[skip]} skipped"
	((${#MISSED[@]} == 0))
}

main "$@"
