# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# KTAP output for the tests of the harness, which source this.

NR=0
NR_FAILED=0

# Announce $1 tests.
plan() {
	echo "TAP version 13"
	echo "1..$1"
}

# Test $1 passes if the command that follows does.
check() {
	local name=$1

	shift
	NR=$((NR + 1))
	if "$@"; then
		echo "ok $NR $name"
	else
		echo "not ok $NR $name"
		NR_FAILED=$((NR_FAILED + 1))
	fi
}

# What $1 is must be what it should be, $2.
equal() {
	[[ $1 = "$2" ]] || { echo "# '$1', not '$2'"; return 1; }
}
