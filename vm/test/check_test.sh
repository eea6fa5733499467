#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of check.sh: that what is broken does not pass.  Runs on the host; the
# golden logs show what kernels print.

set -euo pipefail

TEST_DIR=$(dirname "$(realpath "$0")")
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT

# shellcheck source=vm/check.sh
source "$TEST_DIR/../check.sh"
# shellcheck source=vm/test/ktap.sh
source "$TEST_DIR/ktap.sh"

# The program's output on stdin, ended as $1, must count as $2: passed, failed,
# skipped.
counts() {
	cat >"$TMP/log"
	count_results "$TMP/log" "$1"
	equal "$PASSED $FAILED $SKIPPED" "$2"
}

# Golden log $1 must, or must not, show a splat.
has_splat() {
	[[ -n $(splats "$TEST_DIR/golden/$1.console") ]]
}

no_splat() {
	[[ -z $(splats "$TEST_DIR/golden/$1.console") ]]
}

complete_passes() {
	counts "exit 0" "2 0 0" <<-EOF
	TAP version 13
	1..2
	ok 1 first
	# a comment
	ok 2 second
	EOF
}

skip_counts() {
	counts "exit 0" "1 0 1" <<-EOF
	TAP version 13
	1..2
	ok 1 first
	ok 2 # SKIP no such device
	EOF
}

not_ok_fails() {
	counts "exit 1" "1 1 0" <<-EOF
	TAP version 13
	1..2
	ok 1 first
	not ok 2 second
	EOF
}

# A test that says it failed fails, whatever its exit status.
not_ok_with_exit_0_fails()
{
	counts "exit 0" "1 1 0" <<-EOF
	TAP version 13
	1..2
	ok 1 first
	not ok 2 second
	EOF
}

truncated_plan_fails() {
	counts "exit 0" "1 2 0" <<-EOF
	TAP version 13
	1..3
	ok 1 first
	EOF
}

more_than_planned_fails() {
	counts "exit 0" "2 1 0" <<-EOF
	TAP version 13
	1..1
	ok 1 first
	ok 2 second
	EOF
}

missing_plan_fails() {
	counts "exit 0" "1 1 0" <<-EOF
	TAP version 13
	ok 1 first
	EOF
}

header_only_fails() {
	counts "exit 0" "0 1 0" <<<"TAP version 13"
}

empty_plan_fails() {
	counts "exit 0" "0 1 0" <<<"1..0"
}

bail_out_fails() {
	counts "exit 1" "0 2 0" <<-EOF
	TAP version 13
	1..2
	Bail out! no KVM
	EOF
}

missing_verdict_fails() {
	counts "" "1 1 0" <<-EOF
	TAP version 13
	1..1
	ok 1 first
	EOF
}

signal_fails() {
	counts "signal 11" "1 1 0" <<-EOF
	TAP version 13
	1..1
	ok 1 first
	EOF
}

timeout_fails() {
	counts "timeout" "1 1 0" <<-EOF
	TAP version 13
	1..2
	ok 1 first
	EOF
}

failed_exit_fails() {
	counts "exit 1" "1 1 0" <<-EOF
	TAP version 13
	1..1
	ok 1 first
	EOF
}

skipped_program_skips() {
	counts "exit 4" "0 0 1" <<<"1..0 # SKIP - Requirement not met: KVM"
}

plain_program_counts_once() {
	counts "exit 0" "1 0 0" <<<"all is well"
}

plain_failure_counts_once() {
	counts "exit 254" "0 1 0" <<<"==== Test Assertion Failure ===="
}

# A job directory as batch.sh leaves it.
job() {
	cat >"$TMP/job.log" <<-EOF
	TAP version 13
	1..1
	ok 1 first
	EOF
	cp "$TEST_DIR/golden/clean.console" "$TMP/job.console.log"
	echo "exit 0" >"$TMP/job.result"
}

judged() {
	judge_job "$TMP/job"
	equal "$PASSED $FAILED $SKIPPED" "$1"
}

clean_job_passes() {
	job
	judged "1 0 0"
}

splat_fails_job() {
	job
	cat "$TEST_DIR/golden/warning.console" >>"$TMP/job.console.log"
	judged "1 1 0"
}

leak_fails_job() {
	job
	echo "leak job 4 kB of unevictable memory" >>"$TMP/job.result"
	judged "1 1 0"
}

job_without_console_fails() {
	job
	: >"$TMP/job.console.log"
	judged "1 1 0"
}

job_not_run_fails() {
	job
	rm "$TMP/job.result"
	judged "0 1 0"
}

# A checker without anything to look for must not find the log clean.
missing_deny_file_fails() {
	[[ -n $(splats "$TEST_DIR/golden/clean.console" "$TMP/none") ]]
}

empty_deny_file_fails() {
	echo "# only a comment" >"$TMP/deny"
	[[ -n $(splats "$TEST_DIR/golden/clean.console" "$TMP/deny") ]]
}

allowed_splat_passes() {
	echo "WARNING: CPU: 0 PID: 1 at golden" >"$TMP/log"
	echo "at golden" >"$TMP/allow"
	[[ -n $(splats "$TMP/log") ]] &&
		[[ -z $(splats "$TMP/log" "$CHECK_DIR/splats.deny" "$TMP/allow") ]]
}

main() {
	local tests name log

	tests=$(declare -F | awk '/_(passes|fails|fails_job|counts|skips|once)$/ { print $3 }')
	# shellcheck disable=SC2012,SC2086 # words and plain names
	plan $(($(wc -w <<<$tests) + $(ls "$TEST_DIR"/golden/*.console | wc -l)))
	for name in $tests; do
		check "$name" "$name"
	done
	for log in "$TEST_DIR"/golden/*.console; do
		name=$(basename "$log" .console)
		if [[ $name = clean* ]]; then
			check "$name has no splat" no_splat "$name"
		else
			check "$name has a splat" has_splat "$name"
		fi
	done
	((NR_FAILED == 0))
}

main
