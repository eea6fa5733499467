// SPDX-License-Identifier: GPL-2.0
/*
 * Deferred holes: what a hole could not free, because somebody had a reference.
 */

/**
 * DOC: Deferred holes
 *
 * A huge folio to which somebody has a reference cannot be split.  A hole in a
 * part of it clears the pages and notes them in the inode: a bitmap for each such
 * block.  A work item tries again until each of them is freed or in use again:
 *
 * - A page that a guest is to map, that fallocate() asks for or that is populated
 *   is taken out of the note at once.  For this to be about single pages, such a
 *   block is not mapped into a guest as one.
 * - The host's page tables may map a block as one, and do not tell which pages it
 *   uses.  But what has nothing but zeroes, once nobody has a reference or can map
 *   it, may go: whoever touches it next finds zeroes again.  What has more stays.
 * - A page that failed stays, for it may have had more.
 *
 * Whatever else takes pages out of the file takes them out of the note, too.
 *
 * The work has no reference to the inode, which would keep memory that nobody can
 * reach.  Eviction, by which time there is no one who could queue it, ends it.
 *
 * Locking: entries come and go under the invalidate_lock, held for write.  To
 * clear bits it is enough to hold it for read.  The work takes it for one block
 * at a time, and holds nothing outside of it.
 */

#include <linux/bitmap.h>
#include <linux/highmem.h>

#include "gmem.h"

/* How long to leave a reference alone */
#define KVM_GMEM_DEFERRED_DELAY	(HZ / 2)

static void kvm_gmem_queue_deferred(struct gmem_inode *gi)
{
	queue_delayed_work(system_unbound_wq, &gi->deferred_work,
			   KVM_GMEM_DEFERRED_DELAY);
}

/*
 * The pages [@start, @end), which are of one block and were cleared, are to be
 * freed as soon as its folio can be split.
 */
void kvm_gmem_defer_pages(struct inode *inode, pgoff_t start, pgoff_t end)
{
	unsigned long block = start >> KVM_GMEM_BLOCK_ORDER;
	struct gmem_inode *gi = GMEM_I(inode);
	unsigned long *pages;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	/* A hole cannot fail.  This is nothing, compared with the folio. */
	pages = xa_load(&gi->deferred, block);
	if (!pages) {
		pages = bitmap_zalloc(KVM_GMEM_BLOCK_PAGES,
				      GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
		xa_store(&gi->deferred, block, pages,
			 GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
	}

	bitmap_set(pages, start % KVM_GMEM_BLOCK_PAGES, end - start);
	kvm_gmem_queue_deferred(gi);
}

/* Whether the block around @index may have pages that are to be freed. */
bool kvm_gmem_is_deferred(struct inode *inode, pgoff_t index)
{
	struct gmem_inode *gi = GMEM_I(inode);

	lockdep_assert_held(&inode->i_mapping->invalidate_lock);

	return !xa_empty(&gi->deferred) &&
	       xa_load(&gi->deferred, index >> KVM_GMEM_BLOCK_ORDER);
}

/* See kvm_gmem_keep_pages(). */
void __kvm_gmem_keep_pages(struct inode *inode, pgoff_t start, pgoff_t end)
{
	unsigned long block, *pages;
	pgoff_t first, i;

	lockdep_assert_held(&inode->i_mapping->invalidate_lock);

	xa_for_each_range(&GMEM_I(inode)->deferred, block, pages,
			  start >> KVM_GMEM_BLOCK_ORDER,
			  (end - 1) >> KVM_GMEM_BLOCK_ORDER) {
		first = block << KVM_GMEM_BLOCK_ORDER;
		for (i = max(start, first);
		     i < min(end, first + KVM_GMEM_BLOCK_PAGES); i++)
			clear_bit(i - first, pages);
	}
}

static void kvm_gmem_drop_empty(struct inode *inode, unsigned long first,
				unsigned long last)
{
	struct gmem_inode *gi = GMEM_I(inode);
	unsigned long block, *pages;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	xa_for_each_range(&gi->deferred, block, pages, first, last) {
		if (!bitmap_empty(pages, KVM_GMEM_BLOCK_PAGES))
			continue;

		xa_erase(&gi->deferred, block);
		bitmap_free(pages);
	}
}

/* The pages [@start, @end) leave the file: nothing is left to be freed. */
void kvm_gmem_forget_pages(struct inode *inode, pgoff_t start, pgoff_t end)
{
	kvm_gmem_keep_pages(inode, start, end);
	kvm_gmem_drop_empty(inode, start >> KVM_GMEM_BLOCK_ORDER,
			    (end - 1) >> KVM_GMEM_BLOCK_ORDER);
}

/*
 * Whether somebody may use @folio, which is locked, or it could not be split.
 * Otherwise nobody can map it after this, and hence get a reference that allows to
 * touch the contents.
 */
static bool kvm_gmem_is_referenced(struct folio *folio)
{
	if (folio_test_large(folio))
		return true;

	if (folio_mapped(folio))
		unmap_mapping_pages(folio->mapping, folio->index, 1, false);

	/* The page cache has one, the caller the other. */
	return folio_ref_count(folio) > 2;
}

/* Whether nobody can tell the page of @folio from one that is not there. */
static bool kvm_gmem_is_blank(struct folio *folio)
{
	bool blank;
	void *p;

	if (folio_test_hwpoison(folio))
		return false;

	if (!folio_test_uptodate(folio))
		return true;

	p = kmap_local_folio(folio, 0);
	blank = !memchr_inv(p, 0, PAGE_SIZE);
	kunmap_local(p);
	return blank;
}

/*
 * Of the block's @pages, leave those that cannot be judged yet.  The others are
 * free to go, @blank, or in use again.
 */
static void kvm_gmem_judge_pages(struct inode *inode, pgoff_t first,
				 unsigned long *pages, unsigned long *blank)
{
	struct folio *folio;
	unsigned int i;

	for_each_set_bit(i, pages, KVM_GMEM_BLOCK_PAGES) {
		/* The first of a huge folio's pages splits it for the others. */
		if (!kvm_gmem_split_unpinned(inode, first + i))
			continue;

		folio = filemap_lock_folio(inode->i_mapping, first + i);
		if (IS_ERR(folio)) {
			__clear_bit(i, pages);
			continue;
		}

		if (!kvm_gmem_is_referenced(folio)) {
			__clear_bit(i, pages);
			__assign_bit(i, blank, kvm_gmem_is_blank(folio));
		}

		folio_unlock(folio);
		folio_put(folio);
	}
}

static void kvm_gmem_free_block(struct inode *inode, unsigned long block)
{
	pgoff_t first = block << KVM_GMEM_BLOCK_ORDER;
	DECLARE_BITMAP(blank, KVM_GMEM_BLOCK_PAGES);
	unsigned int start, end;
	unsigned long *pages;

	guard(gmem_invalidate)(inode->i_mapping);

	pages = xa_load(&GMEM_I(inode)->deferred, block);
	if (!pages)
		return;

	bitmap_zero(blank, KVM_GMEM_BLOCK_PAGES);
	kvm_gmem_judge_pages(inode, first, pages, blank);

	for_each_set_bitrange(start, end, blank, KVM_GMEM_BLOCK_PAGES)
		kvm_gmem_remove_pages(inode, first + start, first + end);

	kvm_gmem_drop_empty(inode, block, block);
}

static void kvm_gmem_free_deferred(struct work_struct *work)
{
	struct gmem_inode *gi = container_of(work, struct gmem_inode,
					     deferred_work.work);
	struct inode *inode = &gi->vfs_inode;
	unsigned long block;
	void *unused;

	xa_for_each(&gi->deferred, block, unused) {
		kvm_gmem_free_block(inode, block);
		cond_resched();
	}

	guard(gmem_invalidate_shared)(inode->i_mapping);

	if (!xa_empty(&gi->deferred))
		kvm_gmem_queue_deferred(gi);
}

void kvm_gmem_init_deferred(struct gmem_inode *gi)
{
	xa_init_flags(&gi->deferred, XA_FLAGS_ACCOUNT);
	INIT_DELAYED_WORK(&gi->deferred_work, kvm_gmem_free_deferred);
}

/* @gi is being evicted: nobody can punch any more, and all pages will go. */
void kvm_gmem_cancel_deferred(struct gmem_inode *gi)
{
	unsigned long block, *pages;

	cancel_delayed_work_sync(&gi->deferred_work);

	xa_for_each(&gi->deferred, block, pages)
		bitmap_free(pages);
	xa_destroy(&gi->deferred);
}
