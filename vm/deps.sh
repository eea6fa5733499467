#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make sure that the Debian packages which a target needs are installed:
# installs the missing ones as root or with sudo, else prints the one line
# that does.

set -euo pipefail

# What each group needs. Debian 12 and 13 know the same names.
declare -A packages=(
	[modules]="gcc libc6-dev libelf-dev kmod make patch xz-utils"
	[selftests]="gcc libc6-dev linux-libc-dev make rsync"
	[kernel]="bc bison flex gcc libc6-dev libelf-dev kmod make"
	[vm]="busybox-static cpio gcc libc6-dev kmod qemu-system-x86 xz-utils zstd"
	[plot]="python3-matplotlib"
	[check]="libelf-dev perl shellcheck sparse"
)

usage() {
	cat <<-END
	Usage: vm/deps.sh GROUP...
	       vm/deps.sh --update

	Installs the packages of the groups: ${!packages[*]}.
	--update fetches apt's package lists.
	END
}

# Run apt-get as root, or say what to run.  Others may be at it, too.
apt() {
	local -a get=(apt-get -qq -o DPkg::Lock::Timeout=300)

	if ((EUID == 0)); then
		DEBIAN_FRONTEND=noninteractive "${get[@]}" "$@" >/dev/null
	elif sudo -n true 2>/dev/null; then
		sudo DEBIAN_FRONTEND=noninteractive "${get[@]}" "$@" >/dev/null
	else
		echo "deps: as root, run: apt-get update && apt-get $*" >&2
		echo "deps: then try again" >&2
		exit 1
	fi
}

list_missing() {
	local group package

	for group in "$@"; do
		for package in ${packages[$group]}; do
			dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null |
				grep -qx installed || echo "$package"
		done
	done | sort -u
}

main() {
	local group missing

	if (($# == 0)); then
		usage >&2
		exit 2
	fi
	if [[ $1 == --update ]]; then
		echo "deps: fetching apt's package lists"
		apt update
		return
	fi
	for group in "$@"; do
		if [[ -z ${packages[$group]:-} ]]; then
			usage >&2
			exit 2
		fi
	done

	mapfile -t missing < <(list_missing "$@")
	if ((${#missing[@]} == 0)); then
		return
	fi
	echo "deps: installing ${missing[*]}"
	# The package lists may be absent or old: then fetch them and try again.
	if ! apt install -y --no-install-recommends "${missing[@]}"; then
		apt update
		apt install -y --no-install-recommends "${missing[@]}"
	fi
}

main "$@"
