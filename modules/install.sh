#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Put the modules on this machine in front of its kernel's own KVM, or take
# them away again. What is loaded stays loaded until it is reloaded.

set -euo pipefail

usage() {
	cat <<-END
	Usage: modules/install.sh RELEASE MODULES
	       modules/install.sh --remove

	  RELEASE  kernel release that the modules are for
	  MODULES  directory of kvm.ko, kvm-amd.ko and kvm-intel.ko
	END
}

die() {
	echo "install: $*" >&2
	exit 1
}

main() {
	local dir running vendor

	if (($# != 2)) && [[ "$*" != --remove ]]; then
		usage >&2
		exit 2
	fi
	if ((EUID)); then
		die "run this as root"
	fi
	running=$(uname -r)
	dir=/lib/modules/$running/updates/guest_memfd
	if [[ $1 == --remove ]]; then
		rm -rf "$dir"
	elif [[ $1 == "$running" ]]; then
		install -D -m 644 -t "$dir" "$2"/*.ko
	else
		die "the modules are for $1, but $running runs:" \
			"leave out BASE= and FLAVOUR="
	fi
	depmod "$running"
	vendor=$(grep -qw svm /proc/cpuinfo && echo amd || echo intel)
	echo "install: done. With no VM running, reload KVM:" \
		"modprobe -r kvm_$vendor kvm && modprobe kvm_$vendor"
}

main "$@"
