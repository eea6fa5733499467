#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# KVM can be unloaded and loaded again however often, after guest_memfd was used.

set -euo pipefail

TOP=$(dirname "$(realpath "$0")")/../..

exec "$TOP/vm/run.sh" --log reload \
	--file "$TOP/build/selftests/ours/gmem_lifetime_test" -- "$TOP/vm/test/reload.sh"
