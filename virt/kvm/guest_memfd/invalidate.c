// SPDX-License-Identifier: GPL-2.0
/*
 * Invalidation: taking pages out of guests' page tables, and out of the file.
 */

/**
 * DOC: Invalidation
 *
 * SPTEs hold no reference to pages.  So a page may leave the file only between
 * the start and the end of an invalidation of each VM that may map it: start
 * zaps what is mapped and makes faults in that range retry, end lets them
 * through.
 *
 * Start and end must see the same bindings, or a VM is left with an
 * invalidation in progress that nobody ends.  The caller holds the inode's
 * invalidate_lock, or gmem_inode.views_lock, from the one to the other.
 */

#include <linux/interval_tree.h>
#include <linux/mm.h>

#include "gmem.h"
#include "../kvm_mm.h"

/*
 * Zap what @slot maps of the pages [@start, @end).
 *
 * Zap by way of the memslots that are active now: @slot itself may not be
 * active yet, in which case nothing is mapped, or be about to be deleted, in
 * which case a copy of it has the current metadata.
 */
static bool kvm_gmem_zap_slot(struct kvm *kvm, struct kvm_memory_slot *slot,
			      pgoff_t start, pgoff_t end)
{
	struct kvm_gfn_range range = {
		.attr_filter = KVM_FILTER_PRIVATE,
		.may_block = true,
	};
	gfn_t offset = slot->base_gfn - slot->gmem.pgoff;
	gfn_t first = max(start, slot->gmem.node.start) + offset;
	gfn_t last = min(end - 1, slot->gmem.node.last) + offset;
	struct kvm_memslot_iter iter;
	bool flush = false;

	lockdep_assert_held_write(&kvm->mmu_lock);

	if (kvm_slot_is_gmem_only(slot))
		range.attr_filter |= KVM_FILTER_SHARED;

	/* A fault beside the range must not map a huge page into it. */
	kvm_mmu_invalidate_range_add(kvm,
				     round_down(first, KVM_GMEM_BLOCK_PAGES),
				     round_up(last + 1, KVM_GMEM_BLOCK_PAGES));

	kvm_for_each_memslot_in_gfn_range(&iter,
					  __kvm_memslots(kvm, slot->as_id),
					  first, last + 1) {
		range.slot = iter.slot;
		range.start = max(first, iter.slot->base_gfn);
		range.end = min(last + 1,
				iter.slot->base_gfn + iter.slot->npages);
		flush |= kvm_unmap_gfn_range(kvm, &range);
	}

	return flush;
}

void kvm_gmem_invalidate_start(struct gmem_file *view, pgoff_t start,
			       pgoff_t end)
{
	struct interval_tree_node *node;
	struct kvm_memory_slot *slot;
	struct kvm *kvm = view->kvm;
	bool found = false;
	int idx;

	kvm_gmem_assert_views_stable(file_inode(view->file));

	if (!kvm)
		return;

	idx = srcu_read_lock(&kvm->srcu);

	for (node = interval_tree_iter_first(&view->bindings, start, end - 1);
	     node;
	     node = interval_tree_iter_next(node, start, end - 1)) {
		if (!found) {
			found = true;
			KVM_MMU_LOCK(kvm);
			kvm_mmu_invalidate_begin(kvm);
		}

		slot = container_of(node, struct kvm_memory_slot, gmem.node);
		kvm_gmem_end_zap(kvm, kvm_gmem_zap_slot(kvm, slot, start, end));
	}

	if (found) {
		kvm_gmem_flush_others(kvm);
		KVM_MMU_UNLOCK(kvm);
		kvm_arch_gmem_zapped(kvm);
		kvm_gmem_test_zap(view, start, end);
	}

	srcu_read_unlock(&kvm->srcu, idx);
}

void kvm_gmem_invalidate_end(struct gmem_file *view, pgoff_t start, pgoff_t end)
{
	struct kvm *kvm = view->kvm;

	kvm_gmem_assert_views_stable(file_inode(view->file));

	if (!kvm || !interval_tree_iter_first(&view->bindings, start, end - 1))
		return;

	KVM_MMU_LOCK(kvm);
	kvm_mmu_invalidate_end(kvm);
	KVM_MMU_UNLOCK(kvm);
}

/* Give the pages [@start, @end) back, whoever maps them. */
void kvm_gmem_remove_pages(struct inode *inode, pgoff_t start, pgoff_t end)
{
	pgoff_t first = start;
	pgoff_t next = end;
	struct gmem_file *view;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	kvm_gmem_for_each_file(view, inode)
		kvm_gmem_invalidate_start(view, start, end);

	kvm_gmem_forget_pages(inode, start, end);
	kvm_gmem_trim_range(inode, &first, &next);
	if (first < next) {
		kvm_gmem_isolate_broken(inode, first, next);
		kvm_gmem_reclaim_pages(inode, first, next);
		truncate_inode_pages_range(inode->i_mapping,
					   (loff_t)first << PAGE_SHIFT,
					   ((loff_t)next << PAGE_SHIFT) - 1);
	}

	kvm_gmem_for_each_file(view, inode)
		kvm_gmem_invalidate_end(view, start, end);
}

/* -EPERM: @view may not do that. */
int kvm_gmem_punch_hole(struct gmem_file *view, pgoff_t start, pgoff_t end)
{
	struct inode *inode = file_inode(view->file);

	guard(gmem_invalidate)(inode->i_mapping);

	if (!kvm_gmem_may_change(view))
		return -EPERM;

	kvm_gmem_remove_pages(inode, start, end);
	return 0;
}

/*
 * The memory behind @folio, which is locked, is lost.  Let no guest touch it
 * again, but leave the folio, marked as poisoned, in the file: were it removed,
 * the next fault would give the guest a page of zeroes in place of its data.
 * Faults fail with -EHWPOISON until a hole is punched there.
 */
int kvm_gmem_error_folio(struct address_space *mapping, struct folio *folio)
{
	pgoff_t end = folio->index + folio_nr_pages(folio);
	struct inode *inode = mapping->host;
	struct gmem_file *view;

	guard(mutex)(&GMEM_I(inode)->views_lock);

	kvm_gmem_for_each_file(view, inode) {
		kvm_gmem_invalidate_start(view, folio->index, end);
		kvm_gmem_invalidate_end(view, folio->index, end);
	}

	return MF_DELAYED;
}
