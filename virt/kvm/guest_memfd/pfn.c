// SPDX-License-Identifier: GPL-2.0
/*
 * Pages: allocating them, and handing them out to be mapped.
 */

/**
 * DOC: Pages
 *
 * A page goes through three states while it is in the file:
 *
 * 1. allocated, contents undefined, folio not up to date;
 * 2. filled, up to date: it holds zeroes or what was populated;
 * 3. prepared: the architecture made it the guest's.
 *
 * fallocate() goes to 1, a fault or a prefault on to 3, and populate straight
 * there.  An error leaves the page in the last state that it had reached.  Faults
 * hold the inode's invalidate_lock for read, populate and punch hold it for write:
 * a page that is being filled from elsewhere, or taken away, cannot be mapped at
 * the same time.
 */

#include <linux/highmem.h>
#include <linux/sched/signal.h>

#include "gmem.h"

/*
 * The page at @index, locked and with a reference, allocated if it is not there.
 * -ENOMEM.
 */
struct folio *kvm_gmem_grab_folio(struct inode *inode, pgoff_t index)
{
	if (kvm_gmem_test_should_fail(GMEM_FAIL_GRAB))
		return ERR_PTR(-ENOMEM);

	return kvm_gmem_grab_by_policy(inode, index);
}

/* If @folio, which is locked, holds nothing yet then let it hold zeroes. */
void kvm_gmem_fill_folio(struct folio *folio)
{
	long i;

	if (folio_test_uptodate(folio))
		return;

	for (i = 0; i < folio_nr_pages(folio); i++)
		clear_highpage(folio_page(folio, i));

	folio_mark_uptodate(folio);
}

static int kvm_gmem_prepare_folio(struct kvm *kvm, struct folio *folio,
				  gfn_t gfn)
{
	lockdep_assert_held(&folio->mapping->invalidate_lock);

	if (folio_test_hwpoison(folio))
		return -EHWPOISON;

	kvm_gmem_fill_folio(folio);

	if (kvm_arch_gmem_prepare(kvm, gfn, folio_pfn(folio), 0))
		return -EFAULT;

	kvm_gmem_set_prepared(folio);
	return 0;
}

/**
 * kvm_gmem_is_writable - whether the guest may write to a memslot's private half
 * @slot: a memslot with KVM_MEM_GUEST_MEMFD, kept from going away
 */
bool kvm_gmem_is_writable(const struct kvm_memory_slot *slot)
{
	struct gmem_file *view;

	/* kvm_gmem_get_pfn() has the answer to a memslot that is going. */
	if (!slot->gmem.file)
		return true;

	view = slot->gmem.file->private_data;
	return !(view->flags & KVM_LINK_GUEST_MEMFD_READONLY);
}

/**
 * kvm_gmem_get_pfn - get the page that backs a gfn, ready to be mapped
 * @kvm: the VM
 * @slot: a memslot with KVM_MEM_GUEST_MEMFD; the caller keeps it from going
 *	  away, by kvm->srcu or kvm->slots_lock
 * @gfn: a gfn in @slot
 * @pfn: the page's pfn, with a reference to it that is the caller's
 * @max_order: if not NULL, the order of the largest mapping that may be made
 *
 * Nothing but kvm->mmu_invalidate_seq keeps the page in the file after this.
 *
 * Return: 0; -EFAULT if @slot is being deleted, its view is not active or the
 * architecture refuses; -EHWPOISON if the page is lost; -ENOMEM.
 */
int kvm_gmem_get_pfn(struct kvm *kvm, struct kvm_memory_slot *slot, gfn_t gfn,
		     kvm_pfn_t *pfn, int *max_order)
{
	struct file *file = slot->gmem.file;
	struct folio *folio;
	int r;

	/* The copy of a memslot that KVM uses while it is deleted has none. */
	if (!file)
		return -EFAULT;

	guard(gmem_invalidate_shared)(file->f_mapping);

	if (!kvm_gmem_may_map(file->private_data))
		return -EFAULT;

	folio = kvm_gmem_grab_folio(file_inode(file), gfn - slot->base_gfn +
						      slot->gmem.pgoff);
	if (IS_ERR(folio))
		return PTR_ERR(folio);

	r = kvm_gmem_prepare_folio(kvm, folio, gfn);
	folio_unlock(folio);
	if (r) {
		folio_put(folio);
		return r;
	}

	*pfn = folio_pfn(folio);
	if (max_order)
		*max_order = 0;
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_gmem_get_pfn);

/* Have a page at @index, that may be neither filled nor prepared. */
static int kvm_gmem_allocate_page(struct gmem_file *view, pgoff_t index)
{
	struct inode *inode = file_inode(view->file);
	struct folio *folio;

	guard(gmem_invalidate_shared)(inode->i_mapping);

	if (!kvm_gmem_may_change(view))
		return -EPERM;

	folio = kvm_gmem_grab_folio(inode, index);
	if (IS_ERR(folio))
		return PTR_ERR(folio);

	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

/*
 * Allocate the pages [@start, @end) that are not there.  They are neither
 * filled nor prepared: it is not known yet what for.
 */
long kvm_gmem_allocate(struct gmem_file *view, pgoff_t start, pgoff_t end)
{
	pgoff_t index;
	int r;

	for (index = start; index < end; index++) {
		if (signal_pending(current))
			return -EINTR;

		r = kvm_gmem_allocate_page(view, index);
		if (r)
			return r;

		cond_resched();
	}

	return 0;
}
