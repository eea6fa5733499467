#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the unmodified kernel of Debian sid, small, as something to compare
# with. That takes long, so what is there is not built again.

set -euo pipefail

usage() {
	cat <<-END
	Usage: configs/kernel-7.sh [MAKE-ARGUMENT...]

	Build Linux 7 (see base/sid.sh) as configs/kernel.config asks for, to
	build/kernel/VERSION-kernel.
	END
}

repo=$(realpath "$(dirname "$0")/..")

# The options that TREE still has, of those that are for Linux 6.12.
list_options() {
	local tree=$1

	grep -Ff <(grep -rhoE --include='Kconfig*' \
			'^[[:space:]]*(menu)?config[[:space:]]+[A-Z0-9_]+' "$tree" |
		sed 's/.*[[:space:]]/CONFIG_/; s/$/=/') "$repo/configs/kernel.config"
}

main() {
	local version tree out

	if [[ ${1:-} == --help ]]; then
		usage
		exit
	fi
	version=$("$repo/base/sid.sh")
	tree=$repo/build/base/$version
	out=$repo/build/kernel/$version-kernel
	if [[ -e $out/ko/kvm.ko ]]; then
		return
	fi
	echo "kernel-7: building Linux $version: some minutes, but only once"
	mkdir -p "$out"
	list_options "$tree" >"$out/options.config"
	"$repo/configs/kernel.sh" "$tree" "$out" "$out/options.config" -- "$@"
}

main "$@"
