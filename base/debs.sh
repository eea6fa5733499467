#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Debian's 6.12 kernels as the base to build on: finds, downloads and unpacks
# their packages under build/. Nothing is installed on the machine.

set -euo pipefail

usage() {
	cat <<-END
	Usage: base/debs.sh newest
	       base/debs.sh oldest
	       base/debs.sh abi BASE
	       base/debs.sh source BASE
	       base/debs.sh host BASE FLAVOUR

	  newest  print the newest 6.12.y that apt offers
	  oldest  print the oldest, but not one from before 6.12.94
	  abi     print the ABI name of BASE, such as 6.12.117+deb12
	  source  unpack the source to build/base/BASE
	  host    unpack image and headers to build/host/ABI-FLAVOUR

	BASE is a point release such as 6.12.117, FLAVOUR cloud-amd64 or amd64.
	END
}

repo=$(realpath "$(dirname "$0")/..")
debs=$repo/build/debs

die() {
	echo "debs: $*" >&2
	exit 1
}

# The versions of linux-source-6.12 that apt offers, oldest first.
list_versions() {
	apt-cache madison linux-source-6.12 | cut -d '|' -f 2 | tr -d ' ' | sort -Vu
}

newest() {
	local version

	version=$(list_versions | tail -n 1)
	if [[ -z $version ]]; then
		"$repo/vm/deps.sh" --update >&2
		version=$(list_versions | tail -n 1)
	fi
	if [[ -z $version ]]; then
		die "apt offers no linux-source-6.12: use Debian 12 or 13 with its security archive"
	fi
	echo "${version%%-*}"
}

oldest() {
	list_versions | cut -d - -f 1 | awk -F . '$3 >= 94 { print; exit }'
}

# Print the path of a package's newest file, or nothing. Both arguments may be
# glob patterns. Usage: find_deb PACKAGE VERSION
find_deb() {
	{ compgen -G "$debs/$1_$2_*.deb" || true; } | sort -V | tail -n 1
}

# Download the packages that are not there yet. Usage: fetch VERSION PACKAGE...
fetch() {
	local version=$1 package
	local -a wanted=()
	shift

	for package in "$@"; do
		if [[ -z $(find_deb "$package" "$version") ]]; then
			wanted+=("$package=$version")
		fi
	done
	if ((${#wanted[@]} == 0)); then
		return
	fi
	echo "debs: downloading ${wanted[*]}"
	mkdir -p "$debs"
	# The package lists may be old: then fetch them and try again.
	if ! download "${wanted[@]}"; then
		"$repo/vm/deps.sh" --update
		download "${wanted[@]}"
	fi
}

download() {
	(cd "$debs" && apt-get -qq -o APT::Sandbox::User=root download "$@")
}

# The Debian version of a point release: that of the source at hand, else the
# newest that apt offers.
debian_version() {
	local base=$1 deb version

	deb=$(find_deb linux-source-6.12 "$base-*")
	if [[ -n $deb ]]; then
		version=${deb##*/linux-source-6.12_}
		echo "${version%_all.deb}"
		return
	fi
	version=$(list_versions | sed -n "/^$base-/p" | tail -n 1)
	if [[ -z $version ]]; then
		die "apt offers no linux-source-6.12 of $base, but:" \
			"$(list_versions | cut -d - -f 1 | xargs). Choose one as BASE=," \
			"or put the packages of $base into build/debs"
	fi
	echo "$version"
}

# The ABI names a build of Debian's: 6.12.117+deb12 has the packages
# linux-headers-6.12.117+deb12-common, linux-kbuild-6.12.117+deb12 and so on.
abi() {
	local base=$1 name

	name=$(find_deb "linux-kbuild-$base+*" "*")
	name=${name##*/}
	name=${name%%_*}
	if [[ -z $name ]]; then
		name=$(apt-cache pkgnames "linux-kbuild-$base+" | sort -V | tail -n 1)
	fi
	if [[ -z $name ]]; then
		die "apt offers no linux-kbuild-$base+*: choose another BASE="
	fi
	echo "${name#linux-kbuild-}"
}

unpack_source() {
	local base=$1 dir=$repo/build/base/$1 version

	if [[ -e $dir ]]; then
		return
	fi
	version=$(debian_version "$base")
	fetch "$version" linux-source-6.12
	echo "debs: unpacking the source of $base"
	rm -rf "$dir.new"
	mkdir -p "$dir.new"
	dpkg-deb --fsys-tarfile "$(find_deb linux-source-6.12 "$version")" |
		tar -xO ./usr/src/linux-source-6.12.tar.xz |
		tar -xJ --strip-components=1 -C "$dir.new"
	mv "$dir.new" "$dir"
}

unpack_host() {
	local base=$1 flavour=$2 abi version dir package
	local -a wanted

	abi=$(abi "$base")
	dir=$repo/build/host/$abi-$flavour
	if [[ -e $dir ]]; then
		return
	fi
	version=$(debian_version "$base")
	wanted=("linux-image-$abi-$flavour" "linux-headers-$abi-$flavour"
		"linux-headers-$abi-common" "linux-kbuild-$abi")
	fetch "$version" "${wanted[@]}"
	echo "debs: unpacking $abi-$flavour"
	rm -rf "$dir.new"
	# Packages of Debian 12 have /lib/modules, those of 13 /usr/lib/modules.
	mkdir -p "$dir.new/usr/lib"
	ln -s usr/lib "$dir.new/lib"
	for package in "${wanted[@]}"; do
		dpkg-deb --fsys-tarfile "$(find_deb "$package" "$version")" |
			tar -x --keep-directory-symlink -C "$dir.new"
	done
	sed -i 's|/usr/src/|../|' "$dir.new/usr/src/linux-headers-$abi-$flavour/Makefile"
	mv "$dir.new" "$dir"
}

main() {
	case "${1:-} $#" in
	"newest 1") newest ;;
	"oldest 1") oldest ;;
	"abi 2") abi "$2" ;;
	"source 2") unpack_source "$2" ;;
	"host 3") unpack_host "$2" "$3" ;;
	*)
		usage >&2
		exit 2
		;;
	esac
}

main "$@"
