#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In the VM: let KCSAN say nothing of races that KVM is written to have.  A race is
# left out if it happens right in one of these functions, on either side.

set -e

skip() {
	echo "!$1" >/sys/kernel/debug/kcsan
}

# Looks at mmu_invalidate_seq and at invalidations in progress without mmu_lock,
# to give up early.  What counts is another look, under the lock.
skip kvm_faultin_pfn
# Compares the generation of the memslots with the one of its cache.  If it sees
# an old one then it finds an old memslot, which is there until SRCU says so.
skip kvm_vcpu_gfn_to_memslot
# Change the mode of a vCPU that may be looking at it.  What the vCPU is to do is in
# a request as well, for which it looks in the right order, or just to come out.
skip kvm_make_vcpu_request
skip kvm_arch_vcpu_should_kick
# Look whether the VM has died, which a vCPU or a move may bring about just now.  For
# what uses a vCPU, another look with its mutex is what counts.
skip kvm_vm_ioctl
skip kvm_vcpu_ioctl
