#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Rewrite the hunks of every patch against BASE, so that offsets do not pile
# up. What stands before a patch's first hunk stays as it is.

set -euo pipefail

# shellcheck source=base/series.sh
source "$(dirname "$0")/series.sh"

usage() {
	echo "Usage: base/refresh.sh BASE, a point release such as 6.12.117"
}

# Print the differences that a patch made. Usage: print_hunks OLD NEW PATCH
print_hunks() {
	local old=$1 new=$2 file status=0

	for file in $(list_patched "$3"); do
		echo "diff --git a/$file b/$file"
		diff -up --label "a/$file" --label "b/$file" "$old/$file" "$new/$file" || status=$?
		if ((status > 1)); then
			exit 1
		fi
	done
}

main() {
	local base stage patch refreshed=0

	if (($# != 1)); then
		usage >&2
		exit 2
	fi
	base=$1
	stage=$repo/build/refresh
	"$repo/base/debs.sh" source "$base"
	stage_files "$repo/build/base/$base" "$stage" "$base"
	for patch in $(list_patches); do
		rm -rf "$stage.old"
		cp -r "$stage" "$stage.old"
		apply_patch "$stage" "$patch" "$base"
		{
			sed '/^diff --git /,$d; /^--- a\//,$d' "$repo/patches/$patch"
			print_hunks "$stage.old" "$stage" "$patch"
		} >"$stage.patch"
		if ! cmp -s "$stage.patch" "$repo/patches/$patch"; then
			cp "$stage.patch" "$repo/patches/$patch"
			echo "refresh: patches/$patch"
			refreshed=$((refreshed + 1))
		fi
	done
	rm -rf "$stage" "$stage.old" "$stage.patch"
	echo "refresh: $refreshed patches rewritten for Linux $base"
}

main "$@"
