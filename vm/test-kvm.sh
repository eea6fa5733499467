#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the base kernel's own KVM selftests with the unmodified modules and with
# this project's, and compare: what passes there must pass here.

set -euo pipefail

VM_DIR=$(dirname "$(realpath "$0")")
TOP=$(dirname "$VM_DIR")
BUILD=$TOP/build
TESTS=$BUILD/selftests/base

# shellcheck source=vm/check.sh
source "$VM_DIR/check.sh"
# shellcheck source=vm/batch.sh
source "$VM_DIR/batch.sh"

# The machine, and seconds per test.
CPUS=1
MEM=4096
LIMIT=90

usage() {
	cat <<-EOF
	Usage: make test-kvm [T=REGEX]
	   or: vm/test-kvm.sh [REGEX]

	Run upstream's KVM selftests whose names match REGEX, $LIMIT s each, on the
	modules of the unmodified kernel and on ours; print both outcomes and the
	regressions.  vm/test-kvm.skip lists what does not run, and why.  Outcomes
	with the unmodified modules are kept in build/test-kvm/ until these or the
	tests change.  Exit status: 0 if there is no regression.
	EOF
}

# Set TESTED to the tests that match, SKIPPED_TESTS to those of the skip list.
TESTED=()
SKIPPED_TESTS=()
select_tests() {
	local pattern=$1 file name

	for file in "$TESTS"/*; do
		name=$(basename "$file")
		[[ -x $file && $name != *.sh && $name =~ $pattern ]] || continue
		if grep -q "^${name}[[:space:]]" "$VM_DIR/test-kvm.skip"; then
			SKIPPED_TESTS+=("$name")
		else
			TESTED+=("$name")
		fi
	done
}

# Where the outcomes with modules $1 are: kept ones belong to these very files.
results_dir() {
	local hash

	hash=$(cat "$BUILD/modules/${BASE:-}"*-cloud-amd64/"$1"/*.ko "$TESTS"/* | sha256sum)
	echo "$BUILD/test-kvm/$1-${hash:0:12}"
}

# Run what has no outcome yet in directory $2 with modules $1.
run_side() {
	local modules=$1 results=$2 out=$BUILD/logs/kvm-$1 name list=$2/jobs

	mkdir -p "$results"
	# That a busy machine was too slow says nothing about the next time.
	{ grep -rlE '^fail (timeout|lost verdict)' "$results" || true; } | xargs -r rm
	open_logs "$out"
	: >"$list"
	for name in "${TESTED[@]}"; do
		[[ -e $results/$name ]] || echo "$name $LIMIT $TESTS/$name" >>"$list"
	done
	TOTAL=$(wc -l <"$list")
	BEGUN=0
	[[ -s $list ]] || return 0

	echo "== $TOTAL tests with modules: $modules"
	run_batch "$out" "$list" --modules "$modules" --cpus $CPUS --mem $MEM
	while read -r name _; do
		judge_job "$out/$name"
		outcome >"$results/$name"
	done <"$list"
	rm "$list"
	if [[ -e $out/machine.result ]]; then
		mapfile -t MACHINE < <(sed "s/^/machine ($modules): /" "$out/machine.result")
		printf '%s\n' "${MACHINE[@]}"
		rm "$out/machine.result"
	fi
}

compare() {
	local base=$1 ours=$2 name before after reason

	# What the machine that ran last, with ours, complained about.
	REGRESSIONS=("${MACHINE[@]}")
	BROKEN=0
	printf '\n%-40s %-6s %-6s\n' TEST base ours
	for name in "${TESTED[@]}"; do
		read -r before _ <"$base/$name"
		read -r after reason <"$ours/$name"
		printf '%-40s %-6s %-6s %s\n' "$name" "$before" "$after" "$reason"
		if [[ $before = pass && $after != pass ||
			$after = fail && ($before != fail || $reason = @(kernel splat|left behind)*) ]]; then
			REGRESSIONS+=("$name: $reason")
		elif [[ $after = fail ]]; then
			BROKEN=$((BROKEN + 1))
		else
			COUNT[$after]=$((COUNT[$after] + 1))
		fi
	done
	for name in "${SKIPPED_TESTS[@]}"; do
		reason=$(sed -n "s/^${name}[[:space:]]*//p" "$VM_DIR/test-kvm.skip")
		printf '%-40s %-6s %-6s %s\n' "$name" - - "$reason"
		COUNT[skip]=$((COUNT[skip] + 1))
	done
}

main() {
	local pattern=${1:-.} base ours
	declare -A COUNT=([pass]=0 [skip]=0)

	case $pattern in
	--help | -h) usage; exit 0 ;;
	esac
	make -s -C "$TOP" modules modules-base selftests
	select_tests "$pattern"
	if ((${#TESTED[@]} + ${#SKIPPED_TESTS[@]} == 0)); then
		echo "test-kvm.sh: no test matches '$pattern': see build/selftests/base" >&2
		exit 1
	fi

	base=$(results_dir base)
	ours=$BUILD/test-kvm/ours
	rm -rf "$ours"
	run_side base "$base"
	MACHINE=()
	run_side ours "$ours"
	compare "$base" "$ours"

	echo
	((${#REGRESSIONS[@]} == 0)) || printf 'REGRESSION %s\n' "${REGRESSIONS[@]}"
	echo "$BROKEN tests do not pass with the unmodified modules either"
	echo "${COUNT[pass]} passed, ${#REGRESSIONS[@]} failed, ${COUNT[skip]} skipped"
	((${#REGRESSIONS[@]} == 0))
}

main "$@"
