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
 * A new folio for the page at @index, locked and with a reference.  -EEXIST: there
 * is one.  -ENOMEM.
 */
static struct folio *kvm_gmem_add_folio(struct inode *inode, pgoff_t index)
{
	struct address_space *mapping = inode->i_mapping;
	gfp_t gfp = mapping_gfp_mask(mapping);
	struct folio *folio;
	int r;

	folio = kvm_gmem_alloc_folio(inode, index, 0, gfp);
	if (!folio)
		return ERR_PTR(-ENOMEM);

	r = filemap_add_folio(mapping, folio, index, gfp);
	if (!r)
		return folio;

	folio_put(folio);
	return ERR_PTR(r);
}

/*
 * The folio with the page at @index, locked and with a reference.  If it is not
 * there it is allocated, or @huge: all of its block if that can be had.  -ENOMEM.
 */
struct folio *kvm_gmem_grab_folio(struct inode *inode, pgoff_t index,
				  bool huge)
{
	struct folio *folio;

	if (kvm_gmem_test_should_fail(GMEM_FAIL_GRAB))
		return ERR_PTR(-ENOMEM);

	/* Until nobody else comes first */
	do {
		folio = filemap_lock_folio(inode->i_mapping, index);
		if (!IS_ERR(folio))
			return folio;

		if (huge) {
			folio = kvm_gmem_add_huge_folio(inode, index, false);
			if (folio)
				return folio;
		}

		folio = kvm_gmem_add_folio(inode, index);
	} while (folio == ERR_PTR(-EEXIST));

	return folio;
}

/* If @folio, which is locked, holds nothing yet then let it hold zeroes. */
void kvm_gmem_fill_folio(struct folio *folio)
{
	long i, nr;

	if (folio_test_uptodate(folio))
		return;

	nr = folio_nr_pages(folio);
	for (i = 0; i < nr; i++) {
		if (i)
			cond_resched();
		if (!PageHWPoison(folio_page(folio, i)))
			clear_highpage(folio_page(folio, i));
	}

	folio_mark_uptodate(folio);
}

/*
 * Let @gfn have its page of @folio, of which all may be mapped with it if @order
 * is not 0.
 */
static int kvm_gmem_prepare_page(struct kvm *kvm, struct folio *folio,
				 struct page *page, gfn_t gfn, int order)
{
	int r;

	lockdep_assert_held(&folio->mapping->invalidate_lock);

	if (PageHWPoison(page))
		return -EHWPOISON;

	kvm_gmem_fill_folio(folio);

	r = kvm_arch_gmem_prepare(kvm, gfn, page_to_pfn(page), order);
	if (r < 0)
		return r;

	if (r)
		kvm_gmem_set_prepared(folio->mapping->host, folio->index);
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
 * Return: 0; -EFAULT if @slot is being deleted or its view is not active;
 * -EHWPOISON if the page is lost; -ENOMEM; or what kvm_arch_gmem_prepare() said.
 */
int kvm_gmem_get_pfn(struct kvm *kvm, struct kvm_memory_slot *slot, gfn_t gfn,
		     kvm_pfn_t *pfn, int *max_order)
{
	pgoff_t index = gfn - slot->base_gfn + slot->gmem.pgoff;
	struct file *file = slot->gmem.file;
	struct folio *folio;
	struct page *page;
	int order = 0;
	bool huge;
	int r;

	/* The copy of a memslot that KVM uses while it is deleted has none. */
	if (!file)
		return -EFAULT;

	guard(gmem_invalidate_shared)(file->f_mapping);

	if (!kvm_gmem_may_map(file->private_data))
		return -EFAULT;

	/* The first condition is in the second, but spares small files the call. */
	huge = mapping_large_folio_support(file->f_mapping) &&
	       kvm_gmem_block_is_mappable(kvm, slot, gfn);
	folio = kvm_gmem_grab_folio(file_inode(file), index, huge);
	if (IS_ERR(folio))
		return PTR_ERR(folio);

	/* mm's debugfs can split folios to other sizes. */
	if (huge && max_order && folio_order(folio) == KVM_GMEM_BLOCK_ORDER &&
	    !folio_test_has_hwpoisoned(folio))
		order = KVM_GMEM_BLOCK_ORDER;

	page = folio_file_page(folio, index);
	r = kvm_gmem_prepare_page(kvm, folio, page, gfn, order);
	folio_unlock(folio);
	if (r) {
		folio_put(folio);
		return r;
	}

	kvm_gmem_keep_pages(file_inode(file), index, index + 1);
	*pfn = page_to_pfn(page);
	if (max_order)
		*max_order = order;
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_gmem_get_pfn);

/*
 * Allocate the page at @index, or @huge: all of its block if that can be had, and
 * return where to go on.  -EEXIST: it is there.
 */
static long kvm_gmem_allocate_folio(struct inode *inode, pgoff_t index,
				    bool huge)
{
	struct folio *folio = NULL;

	if (kvm_gmem_test_should_fail(GMEM_FAIL_GRAB))
		return -ENOMEM;

	if (huge)
		folio = kvm_gmem_add_huge_folio(inode, index, true);
	if (!folio)
		folio = kvm_gmem_add_folio(inode, index);
	if (IS_ERR(folio))
		return PTR_ERR(folio);

	index = folio_next_index(folio);
	folio_unlock(folio);
	folio_put(folio);
	return index;
}

/* From @index on, up to @end: the first page that is not there, or @end. */
static long kvm_gmem_next_hole(struct inode *inode, pgoff_t index, pgoff_t end)
{
	XA_STATE(xas, &inode->i_mapping->i_pages, index);
	void *entry;

	guard(rcu)();

	while (index < end) {
		entry = xas_next(&xas);
		if (!entry)
			break;
		if (!xas_retry(&xas, entry))
			index++;
	}

	return index;
}

/*
 * Have pages from @index on, up to @end, and return where to go on: a block at
 * most is done while others wait for the lock.
 */
static long kvm_gmem_allocate_block(struct gmem_file *view, pgoff_t index,
				    pgoff_t start, pgoff_t end)
{
	struct inode *inode = file_inode(view->file);
	long next;
	bool huge;

	guard(gmem_invalidate_shared)(inode->i_mapping);

	if (!kvm_gmem_may_change(view))
		return -EPERM;

	huge = kvm_gmem_block_is_inside(inode, index, start, end);
	end = min(end, round_up(index + 1, KVM_GMEM_BLOCK_PAGES));
	kvm_gmem_keep_pages(inode, index, end);
	index = kvm_gmem_next_hole(inode, index, end);

	/* Looking for each page before would cost a tenth more. */
	while (index < end) {
		next = kvm_gmem_allocate_folio(inode, index, huge);
		if (next == -EEXIST)
			next = kvm_gmem_next_hole(inode, index, end);
		if (next < 0)
			return next;

		/* For the others of the block, it is too late or too little. */
		huge = false;
		index = next;
	}

	return index;
}

/*
 * Allocate the pages [@start, @end) that are not there.  They are neither
 * filled nor prepared: it is not known yet what for.
 */
long kvm_gmem_allocate(struct gmem_file *view, pgoff_t start, pgoff_t end)
{
	long index = start;

	while (index < end) {
		if (signal_pending(current))
			return -EINTR;

		index = kvm_gmem_allocate_block(view, index, start, end);
		if (index < 0)
			return index;
		cond_resched();
	}

	return 0;
}
