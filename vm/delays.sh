#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In the VM: from now on, let the functions between which races happen begin
# with delays of random length below $1 microseconds, half of them this time.

set -e
cd /sys/kernel/debug/kvm_gmem/model

add() {
	# Inlined here or there.
	echo "$1 $2" >delay 2>/dev/null || echo "no $1"
}

for function in \
	kvm_gmem_get_pfn kvm_gmem_fill_folio kvm_gmem_is_writable \
	kvm_gmem_invalidate_start kvm_gmem_invalidate_end \
	kvm_gmem_reclaim_pages kvm_gmem_remove_pages \
	kvm_gmem_add_view kvm_gmem_find_view kvm_gmem_retire_view \
	kvm_gmem_detach_vm kvm_gmem_revoke_vm kvm_gmem_zap_moved \
	kvm_gmem_bind kvm_gmem_bind_commit kvm_gmem_unbind \
	kvm_gmem_alloc_file kvm_gmem_error_folio kvm_gmem_fault \
	kvm_arch_pre_set_memory_attributes kvm_arch_post_set_memory_attributes \
	kvm_tdp_mmu_map kvm_tdp_mmu_unmap_gfn_range kvm_mmu_invalidate_begin \
	kvm_mmu_invalidate_end kvm_mmu_notifier_invalidate_range_start \
	kvm_swap_active_memslots truncate_inode_folio __fput; do
	[ $((0x$(head -c 1 /dev/urandom | od -An -tx1 | tr -d ' ') % 2)) = 0 ] ||
		add "$function" "$1"
done
# Fails if there is none.
grep . delay
