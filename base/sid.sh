#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The newest Linux 7 of Debian sid, unmodified, as something to compare with:
# fetches and unpacks its source under build/. The machine's apt knows nothing
# of it: package lists and settings are our own, in build/apt-sid.

set -euo pipefail

usage() {
	cat <<-END
	Usage: base/sid.sh

	Unpack the newest linux-source-7.* of Debian sid to build/base/VERSION, and
	print VERSION, such as 7.2.13. A package in build/debs is used as it is: for
	a newer one remove build/debs/linux-source-7.* first.
	END
}

repo=$(realpath "$(dirname "$0")/..")
debs=$repo/build/debs
private=$repo/build/apt-sid

die() {
	echo "sid: $*" >&2
	exit 1
}

# Run an apt command that sees sid only. Usage: sid COMMAND ARGUMENT...
sid() {
	local command=$1
	shift

	"$command" -qq -o APT::Sandbox::User=root -o APT::Architecture=amd64 \
		-o Dir::Etc::SourceList="$private/sources.list" \
		-o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
		-o Dir::Etc::PreferencesParts=/dev/null \
		-o Dir::State::Lists="$private/lists" -o Dir::Cache="$private/cache" "$@"
}

update_lists() {
	mkdir -p "$private"/{lists,cache}/partial
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
		"http://deb.debian.org/debian sid main" >"$private/sources.list"
	sid apt-get update >&2
}

# Print the newest package's file, or nothing.
find_deb() {
	{ compgen -G "$debs/linux-source-7.*_all.deb" || true; } | sort -V | tail -n 1
}

fetch() {
	local package

	echo "sid: fetching the package lists of Debian sid" >&2
	update_lists
	package=$(sid apt-cache pkgnames linux-source-7. | sort -V | tail -n 1)
	if [[ -z $package ]]; then
		die "Debian sid offers no linux-source-7.*: put one into build/debs"
	fi
	echo "sid: downloading $package" >&2
	mkdir -p "$debs"
	(cd "$debs" && sid apt-get download "$package" >&2)
}

unpack() {
	local deb=$1 dir=$2 package

	package=${deb##*/}
	package=${package%%_*}
	echo "sid: unpacking $package" >&2
	rm -rf "$dir.new"
	mkdir -p "$dir.new"
	dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/src/$package.tar.xz" |
		tar -xJ --strip-components=1 -C "$dir.new"
	mv "$dir.new" "$dir"
}

main() {
	local deb version

	if (($#)); then
		usage >&2
		exit 2
	fi
	deb=$(find_deb)
	if [[ -z $deb ]]; then
		fetch
		deb=$(find_deb)
	fi
	# Of linux-source-7.2_7.2.13-1_all.deb, 7.2.13.
	version=${deb##*/}
	version=${version#*_}
	version=${version%%-*}
	mkdir -p "$repo/build/base"
	if [[ ! -e $repo/build/base/$version ]]; then
		unpack "$deb" "$repo/build/base/$version"
	fi
	echo "$version"
}

main "$@"
