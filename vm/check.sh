# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The judge of a run, sourced by run.sh and test.sh: finds kernel splats in a
# console log, and counts the results in a program's output.

CHECK_DIR=$(dirname "${BASH_SOURCE[0]}")

# The expressions of file $1, without comments and blank lines.
patterns() {
	grep -v -e '^#' -e '^[[:space:]]*$' "$1"
}

# Print the lines of console log $1 that are splats.  Without expressions to
# look for, nothing has been checked: that is reported as a splat, too.
splats() {
	local log=$1 deny=${2:-$CHECK_DIR/splats.deny} allow=${3:-$CHECK_DIR/splats.allow}

	if [[ ! -s $log ]]; then
		echo "no console log to check: $log"
	elif ! patterns "$deny" >/dev/null 2>&1; then
		echo "no splat expressions to check with: restore $deny"
	else
		grep -aE -f <(patterns "$deny") "$log" |
			grep -avE -f <(patterns "$allow") || true
	fi
}

# What became of job $2's program in boot verdict $1: "exit N", "signal N",
# "timeout", "stuck", or nothing if the verdict got lost.
result_of() {
	sed -n "s/^result $2 //p" "$1" | tail -1
}

# Count the results in log $1 of a program that ended as $2 ("exit 0" ...).
# Sets PASSED, FAILED, SKIPPED and the array REASONS, one for each failure.
# A program that speaks no KTAP counts as one test.
count_results() {
	local log=$1 result=$2 line plan='' seen ktap='' skip_all=''

	PASSED=0 FAILED=0 SKIPPED=0 REASONS=()
	while IFS= read -r line || [[ -n $line ]]; do
		case $line in
		'TAP version '* | 'KTAP version '*) ktap=1 ;;
		'1..0 # SKIP'*) skip_all=1 ;;
		'1..'[0-9]*) plan=$((${plan:-0} + $(plan_of "$line"))) ;;
		'ok '*'# SKIP'*) SKIPPED=$((SKIPPED + 1)) ;;
		'ok '*) PASSED=$((PASSED + 1)) ;;
		'not ok '*) fail "$line" ;;
		'Bail out!'*) fail "$line" ;;
		esac
	done < <(tr -d '\0' <"$log")

	seen=$((PASSED + FAILED + SKIPPED))
	if [[ $result = 'exit 4' && ($skip_all || $seen = 0) ]]; then
		SKIPPED=$((SKIPPED + 1))
		return
	elif [[ -n $plan ]] && ((seen != plan)); then
		fail "$seen results of $plan planned" $((plan > seen ? plan - seen : 1))
	elif [[ -z $plan ]] && [[ -n $ktap || $seen -gt 0 ]]; then
		fail "no plan"
	elif [[ -z $plan && $result = 'exit 0' ]]; then
		PASSED=1
	fi
	if [[ $result != 'exit 0' && ($FAILED = 0 || $result != 'exit 1') ]]; then
		blame "${result:-lost verdict}"
	elif ((PASSED + FAILED + SKIPPED == 0)); then
		fail "no results"
	fi
}

# The number of tests that plan $1, "1..N", announces.
plan_of() {
	local number=${1#1..}

	echo "${number%%[!0-9]*}"
}

# Note reason $1 for $2 failures, or for one.
fail() {
	REASONS+=("$1")
	FAILED=$((FAILED + ${2:-1}))
}

# Note reason $1 why the whole program failed: counts unless a test of it did.
blame() {
	fail "$1" $((FAILED ? 0 : 1))
}

# Count the results of the job that left $1.log, $1.console.log and $1.result:
# beside its own results, it must leave nothing behind and the kernel content.
judge_job() {
	local job=$1 line first

	touch "$job.log"
	if [[ ! -e $job.result ]]; then
		PASSED=0 FAILED=0 SKIPPED=0 REASONS=()
		fail "did not run"
		return
	fi
	count_results "$job.log" "$(head -1 "$job.result")"
	while read -r line; do
		blame "left behind: ${line#leak * }"
	done < <(tail -n +2 "$job.result")
	first=$(splats "$job.console.log" | head -1)
	[[ -z $first ]] || blame "kernel splat: $first"
}

# One word for what judge_job found, and the first reason.
outcome() {
	if ((FAILED)); then
		echo "fail ${REASONS[0]}"
	elif ((PASSED)); then
		echo "pass"
	else
		echo "skip"
	fi
}
