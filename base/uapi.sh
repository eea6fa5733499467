#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compare the headers that programs compile with: what ours add to Linux 6.12's
# and Linux 7's have as well must mean the same in both.

set -euo pipefail

usage() {
	cat <<-END
	Usage: make check-uapi
	   or: base/uapi.sh TREE ORIGIN

	Install the uAPI headers of the patched TREE, of ORIGIN, which it was made of,
	and of Linux 7 (see base/sid.sh) under build/uapi, and compare KVM's macros,
	structures and enumerators. Fails if a name that TREE adds or changes is
	another thing in Linux 7, and lists the names that are only ours.
	END
}

repo=$(realpath "$(dirname "$0")/..")
out=$repo/build/uapi

# Install the headers of kernel tree $2 as $1.
install_headers() {
	local name=$1 tree=$2

	mkdir -p "$out/$name"
	make -s -C "$tree" O="$out/$name" ARCH=x86 headers
}

# What <linux/kvm.h> of $1 says, a line each: "NAME MEANING".
list_names() {
	local -a cpp=(gcc -E -I "$out/$1/usr/include" -include linux/kvm.h -xc /dev/null)

	"${cpp[@]}" -dM | sed -nE 's/^#define ((_*KVM|GUEST_MEMFD)[A-Z0-9_]*) (.*)/\1 \3/p'
	# One line for each structure, union or enum that ends at the left margin.
	"${cpp[@]}" -P | awk '
		/^(struct|union|enum)( [a-z0-9_]+)? {/ { text = ""; name = $1 " " $2 }
		{ text = text " " $0 }
		/^}/ {
			if (name ~ / [a-z]/) {
				gsub(/[ \t]+/, " ", text)
				sub(/ /, "_", name)
				print name text
			}
			name = ""
		}'
}

main() {
	local side status=0

	if (($# != 2)); then
		usage >&2
		exit 2
	fi
	install_headers ours "$1"
	install_headers base "$2"
	install_headers 7 "$repo/build/base/$("$repo/base/sid.sh")"
	for side in ours base 7; do
		list_names "$side" | LC_ALL=C sort -u >"$out/$side.names"
	done

	# Lines of ours that the base has not, beside Linux 7's of the same name.
	LC_ALL=C comm -23 "$out/ours.names" "$out/base.names" >"$out/added.names"
	awk '
		NR == FNR { name = $1; sub(/^[^ ]* /, ""); theirs[name] = $0; next }
		{
			name = $1
			sub(/^[^ ]* /, "")
			if (!(name in theirs)) {
				only = only " " name
			} else if (theirs[name] != $0) {
				print "not ok " name ": " $0 " (Linux 7: " theirs[name] ")"
				bad++
			} else {
				print "ok " name
				good++
			}
		}
		END {
			print "only here:" only
			printf "%d passed, %d failed, 0 skipped\n", good, bad
			exit bad || !good
		}' "$out/7.names" "$out/added.names" || status=$?
	return "$status"
}

main "$@"
