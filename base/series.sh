# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts here and vm/prepare.sh know about patches/ and about the
# files of the overlay. To be sourced.

repo=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")

# Print a list file without comments and blank lines.
read_list() {
	sed 's/[[:space:]]*#.*//; /^$/d' "$1"
}

list_patches() {
	read_list "$repo/patches/series"
}

# The files that patches edit, sorted. Usage: list_patched [PATCH...]
list_patched() {
	(cd "$repo/patches" && sed -n 's|^+++ b/\([^[:space:]]*\).*|\1|p' "$@") | sort -u
}

list_all_patched() {
	local -a patches

	mapfile -t patches < <(list_patches)
	if ((${#patches[@]})); then
		list_patched "${patches[@]}"
	fi
}

list_replaced() {
	read_list "$repo/base/replaced"
}

# The files of the overlay: everything at an in-tree path.
list_overlay() {
	local dir

	for dir in Documentation arch include samples tools virt; do
		if [[ -d $repo/$dir ]]; then
			(cd "$repo" && find "$dir" -type f)
		fi
	done | sort
}

# Apply one patch without fuzz to the files in STAGE.
# Usage: apply_patch STAGE PATCH BASE
apply_patch() {
	local stage=$1 patch=$2 base=$3 log rejects

	if log=$(patch -d "$stage" -p1 -F0 -s -f --no-backup-if-mismatch \
			-i "$repo/patches/$patch" 2>&1); then
		return
	fi
	rejects=$(cd "$stage" && find . -name '*.rej' -printf '%P\n' | sed 's/\.rej$//' | xargs)
	echo "patches/$patch does not apply to ${rejects:-a file} of Linux $base:" >&2
	echo "$log" >&2
	find "$stage" -name '*.rej' -exec cat {} + >&2
	cat >&2 <<-END

	Upstream changed that place. See what it did: make drift BASE=$base
	Then edit the patch's hunk until it applies, and: make refresh BASE=$base
	END
	exit 1
}

# Copy the files that the series edits from ORIGIN to STAGE.
# Usage: stage_files ORIGIN STAGE BASE
stage_files() {
	local origin=$1 stage=$2 base=$3 file patch

	rm -rf "$stage"
	mkdir -p "$stage"
	for patch in $(list_patches); do
		for file in $(list_patched "$patch"); do
			if [[ ! -e $origin/$file ]]; then
				echo "patches/$patch edits $file, which Linux $base does not have." >&2
				echo "Find where its code went, and edit the patch." >&2
				exit 1
			fi
			(cd "$origin" && cp --parents "$file" "$stage")
		done
	done
}

# The same, with the series applied. Usage: stage_series ORIGIN STAGE BASE
stage_series() {
	local origin=$1 stage=$2 base=$3 patch

	stage_files "$@"
	for patch in $(list_patches); do
		apply_patch "$stage" "$patch" "$base"
	done
}
