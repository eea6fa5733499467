#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of test.sh: which tests share a boot, and what is asked of its machine.
# Nothing is booted.

set -euo pipefail

TEST_DIR=$(dirname "$(realpath "$0")")
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT

# shellcheck source=vm/test.sh
source "$TEST_DIR/../test.sh"
# shellcheck source=vm/test/ktap.sh
source "$TEST_DIR/ktap.sh"

# In place of batch.sh's, which boots: note the machine and its jobs, and when it
# begins and ends.
run_batch() {
	local list=$2 name

	shift 2
	read -r name _ <"$list"
	echo "begin $name" >>"$TMP/order"
	sleep 0.2
	while read -r name _; do
		echo "$name $*" >>"$TMP/run"
	done <"$list"
	read -r name _ <"$list"
	echo "end $name" >>"$TMP/order"
}

# Run the tests of this configuration, with the arguments as test.sh's options.
run_config() {
	cat >"$TMP/tests.cfg" <<-EOF
	[plain]
	[other]
	[large]
	mem = 512
	cpus = 2
	[wiped]
	append = init_on_free=1 quiet
	[timed]
	alone = yes
	[wiped_too]
	append = init_on_free=1 quiet
	[timed_too]
	cpus = 2
	alone = yes
	[debug_only]
	kernel = debug
	[small]
	append = kvm.gmem_huge_folios=0
	EOF
	VM_DIR=$TMP OUT=$TMP NAMES=() SELECTED=()
	rm -f "$TMP/run"
	parse_options "$@"
	read_config
	select_tests
	run_vm_tests
}

# Test $1 runs with --cpus, --mem and --append $2.
runs_with() {
	equal "$(grep "^$1 " "$TMP/run")" "$1 --kernel stock --modules ours $2"
}

# What follows "begin $1"
after() {
	grep -A 1 "^begin $1\$" "$TMP/order" | tail -n 1
}

plan 11
run_config
check "a test has the default machine" runs_with plain "--cpus 1 --mem 2048 --append "
check "another shares it" runs_with other "--cpus 1 --mem 2048 --append "
check "a test has the machine it asks for" runs_with large "--cpus 2 --mem 512 --append "
check "a test has the command line it asks for" \
	runs_with wiped "--cpus 1 --mem 2048 --append init_on_free=1 quiet"
check "another shares that" \
	runs_with wiped_too "--cpus 1 --mem 2048 --append init_on_free=1 quiet"
check "a test of the debug kernel does not run" \
	equal "$(grep -c debug_only "$TMP/run")" 0
check "a test that measures time runs alone" equal "$(after timed)" "end timed"
check "and last" equal "$(tail -n 1 "$TMP/order" | grep -o timed)" timed

run_config --small
check "all have small folios, if asked to" \
	runs_with plain "--cpus 1 --mem 2048 --append kvm.gmem_huge_folios=0"
check "with their own command line" runs_with wiped \
	"--cpus 1 --mem 2048 --append init_on_free=1 quiet kvm.gmem_huge_folios=0"
check "a test that always has does not run" \
	equal "$(grep -c small "$TMP/run")" 0
((NR_FAILED == 0))
