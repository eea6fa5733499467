#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compile KVM with each of the configurations in configs/variants, in which
# something is missing or otherwise than in configs/kernel.config.

set -euo pipefail

usage() {
	cat <<-END
	Usage: configs/variants.sh TREE OUT [MAKE-ARGUMENT...]

	  TREE  kernel tree, left clean
	  OUT   O= directory, the same for all: what an option does not change is not
	        compiled again
	END
}

main() {
	local here tree out variant name status=0

	if (($# < 2)); then
		usage >&2
		exit 2
	fi
	here=$(dirname "$(realpath "$0")")
	tree=$1
	out=$2
	shift 2
	mkdir -p "$out"
	for variant in "$here"/variants/*.config; do
		name=$(basename "$variant" .config)
		if "$here/kernel.sh" --kvm-only "$tree" "$out" "$here/kernel.config" \
				"$variant" -- "$@" >"$out/$name.log" 2>&1; then
			echo "variant: $name: ok"
		else
			cat "$out/$name.log"
			echo "variant: $name: FAILED"
			status=1
		fi
	done
	return "$status"
}

main "$@"
