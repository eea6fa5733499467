// SPDX-License-Identifier: GPL-2.0
/*
 * Populate: initial contents for a guest that the host can never write to.
 */

/**
 * DOC: Populate
 *
 * A VM type whose hardware measures or encrypts initial memory (SNP's launch
 * update) fills pages before they are mapped.  The user's page is copied to a
 * buffer first, so that no access to user memory, which may take as long as its
 * owner likes, happens under the invalidate_lock.
 */

#include <linux/highmem.h>
#include <linux/sched/signal.h>

#include "gmem.h"

/*
 * The file's page at @index, locked, and known to hold nothing yet.  It comes as
 * a small folio, since pages are filled one by one.
 */
static struct folio *kvm_gmem_get_empty_folio(struct address_space *mapping,
					      pgoff_t index)
{
	struct folio *folio;
	int r = 0;

	folio = kvm_gmem_grab_folio(mapping->host, index, false);
	if (IS_ERR(folio))
		return folio;

	if (folio_test_large(folio) && !folio_test_uptodate(folio)) {
		folio_unlock(folio);
		folio_put(folio);
		/* The first page of a block begins its folio: split behind it. */
		if (!kvm_gmem_split(mapping->host, index | 1))
			return ERR_PTR(-EBUSY);
		return kvm_gmem_get_empty_folio(mapping, index);
	}

	if (folio_test_hwpoison(folio))
		r = -EHWPOISON;
	else if (folio_test_uptodate(folio))
		r = -EEXIST;
	if (!r)
		return folio;

	folio_unlock(folio);
	folio_put(folio);
	return ERR_PTR(r);
}

static void kvm_gmem_drop_page(struct address_space *mapping, pgoff_t index)
{
	loff_t start = (loff_t)index << PAGE_SHIFT;

	lockdep_assert_held_write(&mapping->invalidate_lock);

	truncate_inode_pages_range(mapping, start, start + PAGE_SIZE - 1);
}

static int kvm_gmem_populate_page(struct kvm *kvm, struct kvm_memory_slot *slot,
				  gfn_t gfn, struct kvm_gmem_source *src,
				  kvm_gmem_populate_cb populate, void *opaque)
{
	struct address_space *mapping = slot->gmem.file->f_mapping;
	pgoff_t index = gfn - slot->base_gfn + slot->gmem.pgoff;
	struct folio *folio;
	int r;

	lockdep_assert_held(&kvm->slots_lock);

	if (!kvm_mem_is_private(kvm, gfn))
		return -EINVAL;

	guard(gmem_invalidate)(mapping);

	if (!kvm_gmem_may_change(slot->gmem.file->private_data))
		return -EPERM;

	folio = kvm_gmem_get_empty_folio(mapping, index);
	if (IS_ERR(folio))
		return PTR_ERR(folio);

	kvm_gmem_keep_pages(mapping->host, index, index + 1);
	if (!src->data)
		clear_highpage(folio_page(folio, 0));

	r = populate(kvm, gfn, folio_pfn(folio), src, opaque);
	if (!r) {
		folio_mark_uptodate(folio);
		kvm_gmem_set_prepared(mapping->host, index);
	} else if (src->lost) {
		kvm_gmem_leak_folio(folio);
	}

	folio_unlock(folio);
	folio_put(folio);

	/* Any other failure leaves a page that is as good as never written. */
	if (src->lost)
		kvm_gmem_drop_page(mapping, index);
	return r;
}

/*
 * As kvm_gmem_populate_page(), from and back to user memory, by way of @buffer;
 * or with zeroes, if there is none.
 */
static int kvm_gmem_populate_from_user(struct kvm *kvm,
				       struct kvm_memory_slot *slot, gfn_t gfn,
				       void __user *user, void *buffer,
				       kvm_gmem_populate_cb populate,
				       void *opaque)
{
	struct kvm_gmem_source src = { .data = buffer };
	int r;

	if (buffer && copy_from_user(buffer, user, PAGE_SIZE))
		return -EFAULT;

	r = kvm_gmem_populate_page(kvm, slot, gfn, &src, populate, opaque);

	/* What is copied explains the failure, and is not worth another. */
	if (src.copy_back && copy_to_user(user, buffer, PAGE_SIZE))
		pr_debug("kvm: populate could not explain a failure\n");

	return r;
}

/**
 * kvm_gmem_populate - give private memory its initial contents
 * @kvm: the VM; the caller holds its slots_lock, to keep memslots and memory
 *	 attributes as they are
 * @start: first gfn
 * @src: user memory with the contents; NULL: zeroes
 * @npages: number of pages; what goes past the end of a memslot is cut off
 * @populate: called for each page under the file's invalidate_lock
 * @opaque: for @populate
 *
 * Return: the number of pages that were populated, if any were, or: -EINVAL if
 * @start is not private memory, -EPERM if the view does not allow it, -EEXIST if
 * it has contents already, -EBUSY if somebody uses its huge folio, -EFAULT if @src
 * cannot be read, -EINTR, -ENOMEM, -EHWPOISON, or what @populate said.
 */
long kvm_gmem_populate(struct kvm *kvm, gfn_t start, void __user *src,
		       long npages, kvm_gmem_populate_cb populate, void *opaque)
{
	struct kvm_memory_slot *slot;
	void *buffer = NULL;
	int r = 0;
	long i;

	lockdep_assert_held(&kvm->slots_lock);

	slot = gfn_to_memslot(kvm, start);
	if (!kvm_slot_can_be_private(slot) || npages <= 0)
		return -EINVAL;

	npages = min_t(u64, npages, slot->base_gfn + slot->npages - start);

	if (src) {
		buffer = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
		if (!buffer)
			return -ENOMEM;
	}

	for (i = 0; i < npages; i++) {
		if (signal_pending(current))
			r = -EINTR;
		else
			r = kvm_gmem_populate_from_user(kvm, slot, start + i,
							src + i * PAGE_SIZE,
							buffer, populate,
							opaque);
		if (r)
			break;

		cond_resched();
	}

	free_page((unsigned long)buffer);
	return i ?: r;
}
EXPORT_SYMBOL_GPL(kvm_gmem_populate);
