// SPDX-License-Identifier: GPL-2.0
/*
 * Reclaim: no page leaves the file while the hardware says that it is a guest's.
 */

/**
 * DOC: Reclaim
 *
 * A page that was prepared belongs to a guest, as far as the hardware knows, until
 * the architecture has reclaimed it.  So whoever takes pages out of a file calls
 * kvm_gmem_reclaim_pages() first: no SPTE maps them any more, they cannot be
 * prepared again, and the page allocator has not seen them yet.
 *
 * That a page was prepared is marked in the page cache, not in its folio, for mm may
 * split folios.  All of a huge folio has the mark if a page of it was prepared.
 *
 * Pages that go together are reclaimed in runs, as far as they are neighbours in
 * memory.  A run ends where a huge page of the MMU's would, which bounds the time
 * that the architecture takes for one.
 *
 * A page that cannot be reclaimed would blow up under its next owner.  It leaves
 * the file like the others, but keeps a reference that nobody ever drops: it is
 * lost until the machine boots again.  The log says so, and debugfs has the number
 * of such pages since the module was loaded, in kvm_gmem/leaked_pages.
 */

#include <linux/debugfs.h>
#include <linux/pagevec.h>

#include "gmem.h"

/* A mark that nobody else has a use for where nothing is ever written back */
#define KVM_GMEM_PREPARED	PAGECACHE_TAG_TOWRITE

atomic_t kvm_gmem_leaked_pages;

/* Whether the page at @index, or its folio, was prepared. */
bool kvm_gmem_is_prepared(struct inode *inode, pgoff_t index)
{
	return kvm_arch_gmem_tracks_pages() &&
	       xa_get_mark(&inode->i_mapping->i_pages, index,
			   KVM_GMEM_PREPARED);
}

/* Only for machines that track pages. */
void kvm_gmem_set_prepared(struct inode *inode, pgoff_t index)
{
	struct xarray *pages = &inode->i_mapping->i_pages;

	lockdep_assert_held(&inode->i_mapping->invalidate_lock);

	if (kvm_gmem_is_prepared(inode, index))
		return;

	xa_lock_irq(pages);
	__xa_set_mark(pages, index, KVM_GMEM_PREPARED);
	xa_unlock_irq(pages);
}

/*
 * Keep @folio, which is about to leave the file, from ever being used again.  It
 * need not be reclaimed any more.
 */
void kvm_gmem_leak_folio(struct folio *folio)
{
	struct xarray *pages = &folio->mapping->i_pages;

	xa_lock_irq(pages);
	__xa_clear_mark(pages, folio->index, KVM_GMEM_PREPARED);
	xa_unlock_irq(pages);

	folio_get(folio);
	kvm_gmem_test_leak(folio_pfn(folio),
			   folio_pfn(folio) + folio_nr_pages(folio));
	atomic_add(folio_nr_pages(folio), &kvm_gmem_leaked_pages);
	pr_err_ratelimited("kvm: guest_memfd: pfn 0x%lx cannot be reclaimed and is lost\n",
			   folio_pfn(folio));
}

/* Reclaim the pages from @start on, up to @end: those of whole folios. */
static void kvm_gmem_reclaim_run(kvm_pfn_t start, kvm_pfn_t end)
{
	struct folio *folio;

	while (start < end) {
		start = kvm_arch_gmem_reclaim(start, end);
		if (start == end)
			return;

		folio = pfn_folio(start);
		kvm_gmem_leak_folio(folio);
		start = folio_pfn(folio) + folio_nr_pages(folio);
	}
}

/*
 * Reclaim what was prepared of the pages [@start, @end) of @inode, which no folio
 * has others with.  They stay in the file, from which the caller then removes them.
 */
void kvm_gmem_reclaim_pages(struct inode *inode, pgoff_t start, pgoff_t end)
{
	kvm_pfn_t first = 0, next = 0, pfn;
	struct folio_batch batch;
	struct folio *folio;
	int i;

	/* Looking at all pages would make giving them back a tenth slower. */
	if (!kvm_arch_gmem_tracks_pages())
		return;

	folio_batch_init(&batch);

	while (filemap_get_folios_tag(inode->i_mapping, &start, end - 1,
				      KVM_GMEM_PREPARED, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++) {
			folio = batch.folios[i];
			pfn = folio_pfn(folio);
			if (pfn != next || !(pfn % KVM_GMEM_BLOCK_PAGES)) {
				kvm_gmem_reclaim_run(first, next);
				first = pfn;
			}
			next = pfn + folio_nr_pages(folio);
		}

		folio_batch_release(&batch);
		cond_resched();
	}

	kvm_gmem_reclaim_run(first, next);
}

void kvm_gmem_reclaim_init(struct dentry *dir)
{
	debugfs_create_atomic_t("leaked_pages", 0444, dir,
				&kvm_gmem_leaked_pages);
}
