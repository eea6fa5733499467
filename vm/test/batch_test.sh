#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of batch.sh: a job that brings the machine down is blamed for it, the jobs
# around it keep their results, and each boot begins with the first job.

set -euo pipefail

TEST_DIR=$(dirname "$(realpath "$0")")
TOP=$(realpath "$TEST_DIR/../..")
BUILD=$TOP/build
OUT=$BUILD/logs/harness
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT

# shellcheck source=vm/check.sh
source "$TEST_DIR/../check.sh"
# shellcheck source=vm/batch.sh
source "$TEST_DIR/../batch.sh"
# shellcheck source=vm/test/ktap.sh
source "$TEST_DIR/ktap.sh"

run_jobs() {
	echo 'echo prepared >/proc/sys/kernel/hostname; echo hello' >"$TMP/first.sh"
	echo 'echo c >/proc/sysrq-trigger' >"$TMP/crash.sh"
	echo 'echo "WARNING: golden" >/dev/kmsg' >"$TMP/warn.sh"
	echo 'mount -t ramfs none /mnt; dd if=/dev/zero of=/mnt/x bs=1M count=4' \
		>"$TMP/leak.sh"
	echo 'echo second-owner >/sys/kernel/debug/kvm_gmem/model/provoke' \
		>"$TMP/violate.sh"
	FIRST_JOB="first 20 sh /test/first.sh"
	cat >"$TMP/jobs" <<-EOF
	$FIRST_JOB
	hang 2 sleep 1000
	leak 20 sh /test/leak.sh
	warn 20 sh /test/warn.sh
	violate 20 sh /test/violate.sh
	after 20 echo hello
	crash 20 sh /test/crash.sh
	last 20 cat /proc/sys/kernel/hostname
	EOF
	open_logs "$OUT"
	run_batch "$OUT" "$TMP/jobs" --modules model \
		--file "$TMP/first.sh" --file "$TMP/crash.sh" --file "$TMP/warn.sh" \
		--file "$TMP/leak.sh" --file "$TMP/violate.sh" >"$TMP/output"
}

# Job $1 must have $2 (passed, failed, skipped) results and, if it failed, the
# reason must contain $3.
job_counts() {
	judge_job "$OUT/$1"
	equal "$PASSED $FAILED $SKIPPED" "$2" &&
		grep -q -- "${3:-}" <<<"${REASONS[*]}"
}

one_log_each() {
	equal "$(<"$OUT/first.log")" hello && equal "$(<"$OUT/after.log")" hello
}

make -s -C "$TOP" modules MODEL=1
plan 11
run_jobs
check "job before passes" job_counts first "1 0 0"
check "hanging job fails" job_counts hang "0 1 0" "timeout"
check "leaking job fails" job_counts leak "1 1 0" "unevictable"
check "warning job fails" job_counts warn "1 1 0" "golden"
check "job that violates the ownership model fails" \
	job_counts violate "1 1 0" "violation second-owner 1"
check "its violation is forgotten" job_counts after "1 0 0"
check "crashing job fails" job_counts crash "0 1 0" "panic"
check "job behind it passes" job_counts last "1 0 0"
check "its boot begins with the first job" equal "$(<"$OUT/last.log")" prepared
check "each job has its log" one_log_each
check "no failure is blamed on the machine" test ! -e "$OUT/machine.result"
((NR_FAILED == 0))
