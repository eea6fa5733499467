#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of bench.sh: the tables and the JSON that it makes of results.  Nothing is
# booted.

set -euo pipefail

TEST_DIR=$(dirname "$(realpath "$0")")
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT

# shellcheck source=vm/test/ktap.sh
source "$TEST_DIR/ktap.sh"

# Is $1 a line of the tables, in which one blank is as good as many?
says() {
	sed 's/ *$//' "$TMP/tables" | tr -s ' ' | grep -xF -- "$1" >/dev/null
}

# Instructions are the second number, for each page.
cat >"$TMP/results" <<-EOF
	base time private first_touch 4 9000000 5000000 1000
	ours time private first_touch 4 9000000 600000 1000
	base time private punch 4 1300000 1200000 1000
	ours time private punch 4 1300000 1300000 1000
	ours time private link 4 300 200 1
	ours time private move 4 2000 1000 1
	ours time private first_touch 64 0 9600000 16000
	ours time private link 64 300 200 1
	ours time private move 64 2000 1300 1
	base time anon_4k close 4 0 1000 1000
	ours time anon_4k close 4 0 1500 1000
	base memory private first_touch 64 100 4 8
	ours memory private first_touch 64 64 -16 0
	base longest private punch 64 5000000
	ours longest private punch 64 1000001
	ours longest private_4k punch 64 1000002
	base time private one_vcpu 64 1000 1 1
	base time private one_vcpu 64 500 1 1
	base time private two_vcpus 64 600 1 1
	base time private two_vcpus 64 1000 1 1
EOF

plan 14
"$TEST_DIR/../bench.sh" "$TMP/results" >"$TMP/tables"
check "a target is met" says "first touch by the guest 5000.0 600.0 0.120 <= 700 met"
check "a target is not met" \
	says "punch hole (mapped) 1200.0 1300.0 1.083 <= 40 not met"
check "a multiple of base is met" \
	says "4 KiB folios: first touch 5000.0 600.0 0.120 <= 0.9 base met"
check "a multiple of base is not met" \
	says "4 KiB folios: punch hole 1200.0 1300.0 1.083 <= 0.9 base not met"
check "what base does not have is missing" \
	says "handover: link + move, whole VM - 1200.0 -"
check "what was not measured is missing" says "fallocate - - - <= 40"
check "handovers are compared" says \
	"A handover of the largest differs from one of the smallest by 25.0% (target: 10%): not met."
check "other memory is compared" says " to 1.500 (anon_4k, close, 4 MiB)"
check "small folios have a row of their own" \
	says "4 KiB folios: punch hole - - 5000000 1000002"
check "the longest is found" says "Ours at most: 1000002, not met."
check "memory is that of a GiB" \
	says "private: first_touch 64 1600 1024 64 -256 128 0"
check "the quickest of several tries counts" says "base 1.20"
"$TEST_DIR/../bench.sh" --json "$TMP/results" >"$TMP/json"
check "JSON has all results" equal "$(grep -c '"modules"' "$TMP/json")" 20
check "JSON names the numbers" grep -qF \
	'"operation": "link", "mib": 64, "elapsed_ns": 300, "busy_ns": 200, "pages": 1}' \
	"$TMP/json"
((NR_FAILED == 0))
