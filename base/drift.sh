#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Show what upstream did to the files that the overlay patches or replaces,
# since the point release that base/upstream.sha256 names. Fails until those
# changes are accepted, which says that someone has read them.

set -euo pipefail

# shellcheck source=base/series.sh
source "$(dirname "$0")/series.sh"

hashes=$repo/base/upstream.sha256

usage() {
	cat <<-END
	Usage: base/drift.sh BASE
	       base/drift.sh --accept BASE

	BASE is a point release such as 6.12.117. --accept records its files as
	the ones that the overlay is made for.
	END
}

list_watched() {
	{ list_all_patched; list_replaced; } | sort -u
}

list_hashes() {
	local file

	cd "$repo/build/base/$1"
	list_watched | while read -r file; do
		if [[ -e $file ]]; then
			sha256sum "$file"
		fi
	done
}

accept() {
	local base=$1

	{
		echo "# Linux $base: the upstream files that are patched or replaced."
		list_hashes "$base"
	} >"$hashes.new"
	mv "$hashes.new" "$hashes"
	echo "drift: recorded $(grep -vc '^#' "$hashes") files of Linux $base in base/upstream.sha256"
}

# Print the release that the hashes are of.
reference() {
	sed -n '1s/^# Linux \([0-9.]*\):.*/\1/p' "$hashes"
}

show_diff() {
	local reference=$1 base=$2 file=$3

	echo "drift: $file changed between $reference and $base"
	if [[ -d $repo/build/base/$reference ]]; then
		diff -up --label "$reference/$file" --label "$base/$file" \
			"$repo/build/base/$reference/$file" \
			"$repo/build/base/$base/$file" || true
	else
		echo "drift: its old source cannot be had here: in the stable tree," \
			"git diff v$reference..v$base -- $file"
	fi
}

main() {
	local base reference file verb=show changed=0

	if [[ ${1:-} == --accept ]]; then
		verb=accept
		shift
	fi
	if (($# != 1)); then
		usage >&2
		exit 2
	fi
	base=$1
	"$repo/base/debs.sh" source "$base"
	if [[ $verb == accept ]]; then
		accept "$base"
		return
	fi

	reference=$(reference)
	if [[ $reference != "$base" ]]; then
		"$repo/base/debs.sh" source "$reference" || true
	fi
	for file in $(list_hashes "$base" | sort - <(grep -v '^#' "$hashes") |
			uniq -u | cut -c 67- | sort -u); do
		changed=$((changed + 1))
		if ! list_watched | grep -qxF "$file"; then
			echo "drift: $file is no longer patched or replaced"
		elif ! grep -q "  $file\$" "$hashes"; then
			echo "drift: $file is newly patched or replaced"
		else
			show_diff "$reference" "$base" "$file"
		fi
	done
	if ((changed)); then
		echo "drift: $changed files differ from base/upstream.sha256." \
			"Take over what matters, then: base/drift.sh --accept $base" >&2
		exit 1
	fi
	echo "drift: none since Linux $reference"
}

main "$@"
