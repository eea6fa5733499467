#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the KVM selftests of a kernel tree, statically linked so that they run
# in any VM, and put them side by side into OUT. Nothing is written to the
# tree: headers and objects stay in WORK for the next call.

set -euo pipefail

usage() {
	cat <<-END
	Usage: modules/selftests.sh TREE WORK OUT [MAKE-ARGUMENT...]

	  TREE  kernel tree whose tools/testing/selftests/kvm is built
	  WORK  where its headers and the objects are kept
	  OUT   where the programs go
	END
}

main() {
	local tree work out

	if (($# < 3)); then
		usage >&2
		exit 2
	fi
	tree=$(realpath "$1")
	mkdir -p "$2/headers" "$2/obj" "$3"
	work=$(realpath "$2")
	out=$(realpath "$3")
	shift 3

	make -s -C "$tree" O="$work/headers" ARCH=x86 headers_install
	# The programs are many: leave out the debug information.
	make -s -C "$tree/tools/testing/selftests/kvm" ARCH=x86 \
		OUTPUT="$work/obj" INSTALL_PATH="$out" \
		LINUX_HDR_PATH="$work/headers/usr/include/" \
		KHDR_INCLUDES="-isystem $work/headers/usr/include" \
		USERLDFLAGS=-static EXTRA_CFLAGS=-g0 "$@" all install
}

main "$@"
