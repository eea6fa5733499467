#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What it costs to give a guest's memory back, in instructions per page: with
# the unmodified modules, with ours, and with the ownership model watching.

set -euo pipefail

VM_DIR=$(dirname "$(realpath "$0")")
TOP=$(dirname "$VM_DIR")
BUILD=$TOP/build
PROGRAM=$BUILD/selftests/ours/gmem_reclaim_time_test

usage() {
	cat <<-EOF
	Usage: make bench-reclaim
	   or: vm/bench-reclaim.sh

	Run gmem_reclaim_time_test on an emulated CPU whose clock counts its
	instructions, and print a table: instructions per page, and their ratio to
	the unmodified modules'.  They repeat to 0.1%, those of the model to 1%.
	EOF
}

# One run with modules $1; its output goes to file $2.
run() {
	local modules=$1 log=$2

	if ! "$VM_DIR/run.sh" --icount --modules "$modules" --log "bench-reclaim-$modules" \
		-- "$PROGRAM" >"$log"; then
		cat "$log"
		return 1
	fi
}

# Log $1 as lines: test, nanoseconds per page.
times() {
	awk '$2 == "RUN" { test = $3 } / ns per page$/ { print test, $3 }' "$1"
}

ratio() {
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'
}

main() {
	local modules log test time
	local -A base

	if (($#)); then
		usage
		exit 2
	fi
	make -s -C "$TOP" selftests modules modules-base
	make -s -C "$TOP" modules MODEL=1
	mkdir -p "$BUILD/logs"
	for modules in base ours model; do
		log=$BUILD/logs/bench-reclaim-$modules.log
		run "$modules" "$log"
		[[ $modules != base ]] || printf '%-6s%s\n' '' "$(times "$log" |
			awk '{ printf "%24s", substr($1, index($1, ".") + 1) }')"
		printf '%-6s' "$modules"
		while read -r test time; do
			[[ $modules != base ]] || base[$test]=$time
			printf '%24s' "$time ($(ratio "$time" "${base[$test]}"))"
		done < <(times "$log")
		echo
	done
}

main "$@"
