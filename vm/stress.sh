#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the races of the tests for a while, with delays at random functions.

set -euo pipefail

VM_DIR=$(dirname "$(realpath "$0")")

# shellcheck source=vm/test.sh
source "$VM_DIR/test.sh"

# Upper limit of each delay.
DELAY_US=500

usage() {
	cat <<-EOF
	Usage: make stress MINUTES=N [T=REGEX] [KERNEL=stock|debug|kcsan]
	   or: vm/stress.sh [--kernel stock|debug|kcsan] [REGEX] MINUTES

	Run those tests whose names match REGEX and that vm/tests.cfg calls races,
	again and again until MINUTES have passed.  The ownership model watches, and
	each time other functions of the kernel begin with delays (neither on kcsan).
	The first failure ends it; logs are in build/logs/stress-KERNEL/ROUND.
	EOF
}

# Those of the tests for this kernel that are races.  Here the stock kernel has
# the ownership model, too.
select_races() {
	local name
	local -a names=("${NAMES[@]}")

	if [[ $KERNEL != stock ]]; then
		select_tests
		names=("${SELECTED[@]}")
	fi
	SELECTED=()
	for name in "${names[@]}"; do
		if [[ $name =~ $PATTERN && -n ${CFG[$name.races]+set} ]]; then
			SELECTED+=("$name")
			CFG[$name.args]=${CFG[$name.races]}
		fi
	done
}

main() {
	local minutes=${*: -1} round=0 name

	if [[ ! $minutes =~ ^[0-9]+$ ]]; then
		usage >&2
		exit 2
	fi
	parse_options "${@:1:$#-1}"
	read_config
	select_races
	if ((${#SELECTED[@]} == 0 || minutes == 0)); then
		echo "stress.sh: no race of '$PATTERN' in $minutes minutes: see vm/tests.cfg" >&2
		exit 1
	fi
	if [[ $KERNEL = stock ]]; then
		MODULES=model
	fi
	if [[ $KERNEL = kcsan ]]; then
		FIRST_JOB="kcsan $KCSAN_SECONDS $VM_DIR/kcsan.sh"
	else
		FIRST_JOB="delays 200 $VM_DIR/delays.sh $DELAY_US"
	fi

	build
	SECONDS=0
	while ((SECONDS < minutes * 60 && SUM_FAILED == 0)); do
		round=$((round + 1)) BEGUN=0 TOTAL=${#SELECTED[@]}
		OUT=$BUILD/logs/stress-$KERNEL/$round
		echo "round $round"
		open_logs "$OUT"
		run_vm_tests
	done
	((${#FAILURES[@]} == 0)) || printf 'FAILED %s\n' "${FAILURES[@]}"
	echo "$round rounds in $((SECONDS / 60)) minutes"
	echo "$SUM_PASSED passed, $SUM_FAILED failed, $SUM_SKIPPED skipped"
	((SUM_FAILED == 0))
}

main "$@"
