#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the VM: unload and load KVM again and again.  Each time, a guest_memfd
# is used in between, and nothing of guest_memfd may be left in the slab.

ROUNDS=20

vendor=svm
grep -qw svm /proc/cpuinfo || vendor=vmx

# The last of the lists is the vendor's module, before it comes kvm.ko.
unload() {
	for module in kvm_amd kvm_intel kvm; do
		[ ! -d "/sys/module/$module" ] || rmmod "$module" || return 1
	done
	! grep -q '^kvm' /proc/slabinfo
}

load() {
	while read -r file; do
		case $file in
		*/kvm*) insmod "$file" || return 1 ;;
		esac
	done
}

echo "TAP version 13"
echo "1..$ROUNDS"
round=1
while [ "$round" -le "$ROUNDS" ]; do
	if unload && cat /modules/common.list "/modules/$vendor.list" | load &&
	   /test/gmem_lifetime_test -t descriptor_keeps_the_memory_of_a_dead_vm \
		>/dev/null 2>&1; then
		echo "ok $round reload $round"
	else
		echo "not ok $round reload $round"
		exit 1
	fi
	round=$((round + 1))
done
