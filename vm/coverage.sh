#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the tests on a kernel whose KVM modules count what is executed, and print
# how much of guest_memfd that was.

set -euo pipefail

VM_DIR=$(dirname "$(realpath "$0")")
TOP=$(dirname "$VM_DIR")
BUILD=$TOP/build

usage() {
	cat <<-EOF
	Usage: make coverage [T=REGEX]
	   or: vm/coverage.sh [REGEX]

	Run the tests of vm/tests.cfg whose names match REGEX on a kernel with gcov,
	and print, for each file, which part of its lines was executed and of its
	branches taken, then the lines that were not executed.  The annotated sources
	are in build/logs/coverage.

	Exit status: 0 if all tests passed.
	EOF
}

# The objects of the files that are counted, as paths in the kernel's build.
list_objects() {
	(cd "$TOP" && find virt/kvm/guest_memfd arch/x86/kvm -name '*.c' | sort)
}

# Add up the counts of all boots in directory $1, and leave them in $1/sum.
merge() {
	local out=$1 log boot first=''

	for log in "$BUILD"/logs/coverage-ours/*/gcov.log; do
		[[ -e $log ]] || continue
		boot=$out/$(basename "$(dirname "$log")")
		mkdir -p "$boot"
		base64 -d <"$log" | tar -xz -C "$boot"
		if [[ -z $first ]]; then
			first=1
			cp -r "$boot" "$out/sum"
		else
			gcov-tool merge -o "$out/next" "$out/sum" "$boot"
			rm -r "$out/sum"
			mv "$out/next" "$out/sum"
		fi
	done
	if [[ -z $first ]]; then
		echo "coverage: no counts arrived: see build/logs/coverage-ours" >&2
		exit 1
	fi
}

# gcov's words on source $2, by the counts in $1/sum and build $3.
report() {
	local out=$1 source=$2 build=$3 name

	name=$(basename "$source" .c)
	[[ -e $out/sum/$name.gcda ]] || return 0
	cp "$build/${source%.c}.gcno" "$out/sum/"
	(cd "$out" && gcov -b -o sum "$name.gcda" 2>/dev/null) |
		awk -v name="$source" '
			/^File / { wanted = index($0, name) }
			wanted && /^Lines/ { split($0, l, /[:% ]+/); lines = l[3]; of = l[5] }
			wanted && /^Taken/ { split($0, b, /[:% ]+/); taken = b[5]; branches = b[7] }
			END { printf "%s %s %s %s %s\n", name, lines, of, taken, branches }'
}

print_table() {
	awk '
		BEGIN { printf "%-42s %8s %6s %10s %6s\n", "FILE", "LINES", "of", "BRANCHES", "of" }
		{
			printf "%-42s %7.1f%% %6d %9.1f%% %6d\n", $1, $2, $3, $4, $5
			lines += $2 * $3; of += $3; taken += $4 * $5; branches += $5
		}
		END {
			if (of && branches)
				printf "%-42s %7.1f%% %6d %9.1f%% %6d\n", "all", lines / of, of,
					taken / branches, branches
		}'
}

main() {
	local pattern=${1:-.} out=$BUILD/logs/coverage build status=0 source

	if [[ $pattern == --help ]]; then
		usage
		exit
	fi
	"$VM_DIR/test.sh" --kernel coverage "$pattern" || status=$?

	build=$(find "$BUILD/kernel" -maxdepth 1 -name "${BASE:-*}-coverage" | sort -V | tail -1)
	rm -rf "$out"
	mkdir -p "$out"
	merge "$out"
	list_objects | while read -r source; do
		report "$out" "$source" "$build"
	done >"$out/table"

	echo
	print_table <"$out/table"
	echo
	echo "Not executed:"
	(cd "$out" && grep -H '^ *#####' -- *.c.gcov | sed 's/\.gcov: *#####: *\([0-9]*\):/:\1:/') || true
	return "$status"
}

main "$@"
