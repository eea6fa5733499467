#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of run.sh: each way that a run can end has its exit status, shown by a
# boot of its own.

set -euo pipefail

TEST_DIR=$(dirname "$(realpath "$0")")
OUTPUT=$(mktemp)
trap 'rm -f "$OUTPUT"' EXIT

# shellcheck source=vm/test/ktap.sh
source "$TEST_DIR/ktap.sh"

# run.sh with arguments $3... must exit with status $1 and say $2.
ends() {
	local expected=$1 text=$2 status=0

	shift 2
	"$TEST_DIR/../run.sh" --log harness "$@" >"$OUTPUT" 2>&1 || status=$?
	sed 's/^/# /' "$OUTPUT"
	equal "$status" "$expected" && grep -q -- "$text" "$OUTPUT"
}

# Where the ownership model's files are, in whose place a test puts its own.
model=/sys/kernel/debug/kvm_gmem/model

plan 12
check "status and output pass through" ends 7 "^hello" -- sh -c 'echo hello; exit 7'
check "dynamic program runs" ends 0 "hello" -- /bin/echo hello
check "signal is 128 + N" ends 137 "signal 9" -- sh -c 'kill -9 $$'
check "hang is a timeout" ends 122 "timeout" --timeout 3 -- sleep 1000
check "panic is found" ends 123 "panic" -- sh -c 'echo c >/proc/sysrq-trigger'
check "splat is found" ends 121 "WARNING: golden" -- \
	sh -c 'echo "WARNING: golden" >/dev/kmsg'
check "lost verdict is found" ends 124 "lost verdict" -- reboot -f
check "leaked memory is found" ends 125 "unevictable" -- \
	sh -c 'mount -t ramfs none /mnt && dd if=/dev/zero of=/mnt/x bs=1M count=4'
check "page that the model knows is found" ends 125 "3 pages in the ownership model" -- \
	sh -c "mount -t tmpfs none /sys/kernel/debug && mkdir -p $model && echo 3 >$model/pages"
check "words reach the kernel's command line" ends 0 "golden=1" \
	--append "golden=1 x" -- cat /proc/cmdline
check "missing program is an error" ends 120 "no such program" -- ./no/such/program
check "unknown option is an error" ends 120 "help" --no-such-option
((NR_FAILED == 0))
