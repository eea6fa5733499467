#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make build/tree/BASE: Debian's source of that kernel, hard-linked, with the
# overlay's files linked in one by one and the patches applied. Run again, it
# touches only what changed since, so that a build redoes no more than it must.
#
# Beside the tree lie BASE.links (the overlay's files in it), BASE.patched (the
# patched ones) and BASE.files (both).

set -euo pipefail

# shellcheck source=base/series.sh
source "$(dirname "$0")/../base/series.sh"

usage() {
	echo "Usage: vm/prepare.sh BASE, a point release such as 6.12.117"
}

# Give FILE of the tree back its upstream content, as a new file with a new
# time of change: builds go by that.
restore_file() {
	local origin=$1 tree=$2 file=$3

	rm -f "$tree/$file"
	if [[ -e $origin/$file ]]; then
		cp "$origin/$file" "$tree/$file"
	fi
}

remove_replaced() {
	local tree=$1 file

	for file in $(list_replaced); do
		rm -f "$tree/$file"
	done
}

link_overlay() {
	local origin=$1 tree=$2 file

	list_overlay >"$tree.links.new"
	touch "$tree.links"
	for file in $(comm -23 "$tree.links" "$tree.links.new"); do
		restore_file "$origin" "$tree" "$file"
	done
	remove_replaced "$tree"
	for file in $(comm -13 "$tree.links" "$tree.links.new"); do
		if [[ -e $origin/$file ]] && ! list_replaced | grep -qxF "$file"; then
			echo "$file exists upstream: make a patch of it, or list it in base/replaced" >&2
			exit 1
		fi
		mkdir -p "$tree/$(dirname "$file")"
		ln -srf "$repo/$file" "$tree/$file"
	done
	mv "$tree.links.new" "$tree.links"
}

# Patch a copy, then bring over the files that came out different: the others
# keep their time of change, and the tree stays whole when a patch fails.
patch_tree() {
	local origin=$1 tree=$2 base=$3 file

	touch "$tree.patched"
	stage_series "$origin" "$tree.stage" "$base"
	list_all_patched >"$tree.patched.new"
	for file in $(comm -23 "$tree.patched" "$tree.patched.new"); do
		restore_file "$origin" "$tree" "$file"
	done
	while read -r file; do
		if ! cmp -s "$tree.stage/$file" "$tree/$file"; then
			rm -f "$tree/$file"
			cp "$tree.stage/$file" "$tree/$file"
		fi
	done <"$tree.patched.new"
	mv "$tree.patched.new" "$tree.patched"
	rm -r "$tree.stage"
}

main() {
	local base origin tree

	if (($# != 1)); then
		usage >&2
		exit 2
	fi
	base=$1
	origin=$repo/build/base/$base
	tree=$repo/build/tree/$base
	mkdir -p "$repo/build/tree"
	exec 9>"$tree.lock"
	flock 9

	"$repo/base/debs.sh" source "$base"
	if [[ ! -e $tree ]]; then
		echo "tree: linking $base"
		rm -rf "$tree.new" "$tree.links" "$tree.patched"
		cp -al "$origin" "$tree.new"
		mv "$tree.new" "$tree"
	fi
	link_overlay "$origin" "$tree"
	patch_tree "$origin" "$tree" "$base"
	sort "$tree.links" "$tree.patched" >"$tree.files"
}

main "$@"
