// SPDX-License-Identifier: GPL-2.0
/*
 * Bindings: a memslot's hold on a part of a view.
 */

/**
 * DOC: Bindings
 *
 * A memslot is bound in two steps.  kvm_gmem_bind() checks everything, and does
 * what can fail, before the memslot's arch metadata is allocated.  A memslot
 * whose metadata is there becomes visible to invalidations in
 * kvm_gmem_bind_commit(), which cannot fail, right before it becomes visible to
 * faults.  kvm_gmem_unbind() undoes either, once no fault can reach the memslot
 * any more and before its metadata is freed.  Since 6.12.118 Linux has names of
 * its own for these steps.
 *
 * The memslot carries its own node of the view's interval tree: binding
 * allocates nothing that would have to be accounted for or could run out.
 */

#include <linux/file.h>

#include "gmem.h"

/*
 * -EINVAL: @view is another VM's, or dead, or is too small for the memslot at
 * @offset.  -EEXIST: another memslot maps some of those pages; one page is never
 * at two gfns of a VM.
 */
static int kvm_gmem_check_binding(struct kvm *kvm, struct gmem_file *view,
				  unsigned long npages, u64 offset)
{
	u64 file_size = i_size_read(file_inode(view->file));
	u64 size = (u64)npages << PAGE_SHIFT;
	pgoff_t start = offset >> PAGE_SHIFT;

	lockdep_assert_held(&kvm->slots_lock);

	if (READ_ONCE(view->kvm) != kvm)
		return -EINVAL;

	if (size > file_size || offset > file_size - size)
		return -EINVAL;

	/*
	 * Only memslots of @kvm are in there, and slots_lock keeps all of them
	 * as they are.
	 */
	if (interval_tree_iter_first(&view->bindings, start,
				     start + npages - 1))
		return -EEXIST;

	return 0;
}

/**
 * kvm_gmem_bind - let a memslot that is being created hold a guest_memfd
 * @kvm: the VM
 * @slot: the new memslot, not yet visible to anybody
 * @fd: file descriptor of a guest_memfd of @kvm
 * @offset: where in the file the memslot begins, in bytes, page aligned
 *
 * Return: 0; -EBADF if @fd is not open, -EINVAL if it is no live guest_memfd of
 * @kvm or too small, -EEXIST if some of the pages are bound already.
 */
int kvm_gmem_bind(struct kvm *kvm, struct kvm_memory_slot *slot,
		  unsigned int fd, u64 offset)
{
	struct gmem_file *view;
	struct file *file;
	int r = -EINVAL;

	file = fget(fd);
	if (!file)
		return -EBADF;

	view = kvm_gmem_file_view(file);
	if (view)
		r = kvm_gmem_check_binding(kvm, view, slot->npages, offset);
	if (!r && kvm_gmem_test_should_fail(GMEM_FAIL_BIND))
		r = -ENOMEM;
	if (r) {
		fput(file);
		return r;
	}

	slot->gmem.file = file;
	slot->gmem.pgoff = offset >> PAGE_SHIFT;
	if (GMEM_I(file_inode(file))->flags & GUEST_MEMFD_FLAG_MMAP)
		slot->flags |= KVM_MEMSLOT_GMEM_ONLY;
	RB_CLEAR_NODE(&slot->gmem.node.rb);
	return 0;
}

/*
 * Linux 6.12.118 and later drop the reference that the first of these takes,
 * whether the memslot comes into being or not, and call kvm_gmem_unbind() only
 * for one that did.  The second is called when nothing can fail any more.
 */

int kvm_gmem_prepare_memory_region(struct kvm *kvm,
				   struct kvm_memory_slot *slot,
				   unsigned int fd, u64 offset)
{
	return kvm_gmem_bind(kvm, slot, fd, offset);
}

int kvm_gmem_commit_memory_region(struct kvm *kvm, struct kvm_memory_slot *slot)
{
	lockdep_assert_held(&kvm->slots_lock);

	get_file(slot->gmem.file);
	return 0;
}

/* Make a fully prepared memslot visible to invalidations.  Cannot fail. */
void kvm_gmem_bind_commit(struct kvm_memory_slot *slot)
{
	struct gmem_file *view = slot->gmem.file->private_data;
	struct inode *inode = file_inode(slot->gmem.file);

	lockdep_assert_held(&view->kvm->slots_lock);

	slot->gmem.node.start = slot->gmem.pgoff;
	slot->gmem.node.last = slot->gmem.pgoff + slot->npages - 1;

	guard(gmem_invalidate)(inode->i_mapping);
	guard(mutex)(&GMEM_I(inode)->views_lock);
	interval_tree_insert(&slot->gmem.node, &view->bindings);
}

/*
 * No fault can reach @slot any more, or none ever could.  If the VM is dying
 * then the view has dropped its bindings already.
 */
void kvm_gmem_unbind(struct kvm_memory_slot *slot)
{
	struct file *file = slot->gmem.file;
	struct gmem_file *view = file->private_data;
	struct inode *inode = file_inode(file);

	scoped_guard(gmem_invalidate, inode->i_mapping) {
		guard(mutex)(&GMEM_I(inode)->views_lock);

		if (!RB_EMPTY_NODE(&slot->gmem.node.rb)) {
			/* Later zaps will not find this slot's pages. */
			kvm_arch_gmem_zapped(view->kvm);
			kvm_gmem_test_unbind(view, slot->gmem.node.start,
					     slot->gmem.node.last);
			interval_tree_remove(&slot->gmem.node, &view->bindings);
			RB_CLEAR_NODE(&slot->gmem.node.rb);
		}
	}

	slot->gmem.file = NULL;
	fput(file);
}

/**
 * kvm_gmem_find_gfn - find the gfn at which a page of a guest_memfd is bound
 * @kvm: the VM; the caller holds kvm->srcu and kvm->mmu_lock
 * @pfn: pfn of a page that @kvm has got from kvm_gmem_get_pfn() once
 * @gfn: where the page is bound
 *
 * The caller has no reference: the page may be anybody's by now, and is what it
 * was only if no invalidation of @gfn has begun since.
 *
 * Return: false if no memslot has the page, or it is poisoned.
 */
bool kvm_gmem_find_gfn(struct kvm *kvm, kvm_pfn_t pfn, gfn_t *gfn)
{
	struct page *page = pfn_to_online_page(pfn);
	struct address_space *mapping;
	struct kvm_memory_slot *slot;
	struct folio *folio;
	pgoff_t index;
	int bkt;

	lockdep_assert_held(&kvm->mmu_lock);

	if (!page || PageHWPoison(page))
		return false;

	folio = page_folio(page);
	mapping = READ_ONCE(folio->mapping);
	index = READ_ONCE(folio->index) + folio_page_idx(folio, page);

	kvm_for_each_memslot(slot, bkt, kvm_memslots(kvm)) {
		if (slot->gmem.file && slot->gmem.file->f_mapping == mapping &&
		    index - slot->gmem.pgoff < slot->npages) {
			*gfn = slot->base_gfn + index - slot->gmem.pgoff;
			return true;
		}
	}

	return false;
}
EXPORT_SYMBOL_GPL(kvm_gmem_find_gfn);
