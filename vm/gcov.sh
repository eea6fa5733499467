#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In the VM: unload KVM, which counts as well, and print what gcov has counted in
# guest_memfd's files, as a tar archive in base64.  The counts outlive modules.

set -e
for module in kvm_amd kvm_intel kvm; do
	[ ! -d "/sys/module/$module" ] || rmmod "$module"
done
dir=$(mktemp -d)
cd /sys/kernel/debug/gcov
# These files have no size, so they must be copied before they can be packed.
find . -name '*.gcda' | grep -E 'guest_memfd/|kvm/(gmem|prefault|svm/vmsa)\.gcda$' |
	while read -r file; do
		cat "$file" >"$dir/$(basename "$file")"
	done
tar -c -z -C "$dir" . | base64
