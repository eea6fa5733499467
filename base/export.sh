#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Write the whole work, files and hooks, as one series for git am on BASE. It
# is output for review: the files and patches/ are what is edited.

set -euo pipefail

# shellcheck source=base/series.sh
source "$(dirname "$0")/series.sh"

usage() {
	echo "Usage: base/export.sh BASE OUT"
}

# The overlay's files that belong into the kernel: makefiles of this repository
# do not. Usage: list_part PATTERN
list_part() {
	list_overlay | grep -E "$1" | grep -v '\.mk$' || true
}

# Commit the overlay's files that match PATTERN. Usage: add_part GIT PATTERN SUBJECT
add_part() {
	local git=$1 pattern=$2 subject=$3 file

	for file in $(list_part "$pattern"); do
		(cd "$repo" && cp --parents "$file" "$git")
	done
	commit "$git" "$subject"
}

commit() {
	git -C "$1" add -A
	git -C "$1" diff --cached --quiet || git -C "$1" commit -q -s -m "$2"
}

main() {
	local base out git patch

	if (($# != 2)); then
		usage >&2
		exit 2
	fi
	base=$1
	mkdir -p "$2"
	out=$(realpath "$2")
	git=$out/git
	"$repo/base/debs.sh" source "$base"

	rm -rf "$git" "$out"/*.patch
	stage_files "$repo/build/base/$base" "$git" "$base"
	list_replaced | (cd "$repo/build/base/$base" && xargs cp --parents -t "$git")
	git -C "$git" init -q
	git -C "$git" config user.name "$(git -C "$repo" config user.name || echo guest_memfd)"
	git -C "$git" config user.email "$(git -C "$repo" config user.email || echo guest_memfd@localhost)"
	commit "$git" "Linux $base"
	git -C "$git" tag base

	add_part "$git" '^(virt|arch|include)/' "KVM: guest_memfd: Add the subsystem"
	for patch in $(list_patches); do
		git -C "$git" am -q "$repo/patches/$patch"
	done
	list_replaced | (cd "$git" && xargs rm -f)
	commit "$git" "KVM: guest_memfd: Remove the file that the subsystem replaces"
	add_part "$git" '^tools/' "KVM: selftests: Add the tests of guest_memfd"
	add_part "$git" '^samples/' "samples: kvm: Add users of guest_memfd"
	add_part "$git" '^Documentation/' "Documentation: KVM: Add guest_memfd"
	git -C "$git" format-patch -q -o "$out" base
	rm -rf "$git"
	echo "patch: $(find "$out" -name '*.patch' | wc -l) patches for git am on Linux $base in $2"
}

main "$@"
