// SPDX-License-Identifier: GPL-2.0
/*
 * Huge folios: memory that an MMU can map as one.
 */

/**
 * DOC: Huge folios
 *
 * A block is a naturally aligned part of a file, as large as what the MMU maps as
 * one huge page (2 MiB on x86).  It is one huge folio, or has small ones where
 * there is memory at all.  A block becomes a huge folio if nothing of it is there
 * and all of it is wanted: fallocate() asked for it, or what touches a part of it
 * could map it as a whole.  If no such memory can be had without waiting for it,
 * small folios do.
 *
 * What takes a part of a block out of the file splits the folio first.  mm has no
 * function for that which modules may call, but splits what it truncates in the
 * middle.  Truncating half a page removes no page, and touches no contents, as
 * the mapping is inaccessible: it just splits.
 *
 * That fails while somebody has a reference to the folio, apart from those of
 * faults, which are waited for.  Then the part is cleared instead, and is memory
 * of the file until nobody has one: see deferred.c.
 *
 * mm splits folios as well, when a page fails for instance, with nothing but the
 * folio locked.  The pages stay what and where they are, so that it does not
 * matter to what maps them.  But only some flags are passed on to small folios.
 *
 * Huge folios are dirty.  That keeps mm from dropping those that it could not
 * split, or that it finds without a user.  They are never written to anywhere.
 */

#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/pagevec.h>

#include "gmem.h"

static bool kvm_gmem_huge_folios = true;
module_param_named(gmem_huge_folios, kvm_gmem_huge_folios, bool, 0644);
MODULE_PARM_DESC(gmem_huge_folios,
		 "Let guest_memfds created from now on have huge folios");

/* How often a folio is tried to be split, and how long to wait in between. */
#define KVM_GMEM_SPLIT_TRIES	20
#define KVM_GMEM_SPLIT_US	100

/* Whether @inode, which is new, may have huge folios. */
void kvm_gmem_init_huge(struct inode *inode)
{
	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) &&
	    READ_ONCE(kvm_gmem_huge_folios) && i_size_read(inode) >= PMD_SIZE)
		mapping_set_large_folios(inode->i_mapping);
}

/* Whether all of the block around @index is in the pages [@start, @end). */
bool kvm_gmem_block_is_inside(struct inode *inode, pgoff_t index,
			      pgoff_t start, pgoff_t end)
{
	pgoff_t first = round_down(index, KVM_GMEM_BLOCK_PAGES);

	return mapping_large_folio_support(inode->i_mapping) &&
	       first >= start && first + KVM_GMEM_BLOCK_PAGES <= end;
}

/* Whether @kvm can map the block at @gfn, which is in @slot, as one. */
bool kvm_gmem_block_is_mappable(struct kvm *kvm, struct kvm_memory_slot *slot,
				gfn_t gfn)
{
	pgoff_t index = gfn - slot->base_gfn + slot->gmem.pgoff;

	if (!kvm_gmem_block_is_inside(file_inode(slot->gmem.file), index,
				      slot->gmem.pgoff,
				      slot->gmem.pgoff + slot->npages) ||
	    kvm_gmem_is_deferred(file_inode(slot->gmem.file), index))
		return false;

	return !((gfn ^ index) % KVM_GMEM_BLOCK_PAGES) &&
	       kvm_mem_attributes_are_uniform(kvm, gfn, KVM_GMEM_BLOCK_PAGES);
}

/*
 * A new folio for the block around @index, locked and with a reference, or NULL:
 * then small ones have to do.  @wait: whether the caller has the time to wait for
 * memory to be made free.
 */
struct folio *kvm_gmem_add_huge_folio(struct inode *inode, pgoff_t index,
				      bool wait)
{
	pgoff_t first = round_down(index, KVM_GMEM_BLOCK_PAGES);
	struct address_space *mapping = inode->i_mapping;
	loff_t pos = (loff_t)first << PAGE_SHIFT;
	gfp_t gfp = mapping_gfp_mask(mapping) | __GFP_NORETRY | __GFP_NOWARN;
	struct folio *folio;

	if (filemap_range_has_page(mapping, pos, pos + PMD_SIZE - 1))
		return NULL;

	if (!wait)
		gfp &= ~__GFP_DIRECT_RECLAIM;

	folio = kvm_gmem_alloc_folio(inode, index, KVM_GMEM_BLOCK_ORDER, gfp);
	if (!folio)
		return NULL;

	if (filemap_add_folio(mapping, folio, first, gfp)) {
		folio_put(folio);
		return NULL;
	}

	folio_set_dirty(folio);
	return folio;
}

/* Whether a huge folio has both the page before @index and that at @index. */
static bool kvm_gmem_is_inside_folio(struct inode *inode, pgoff_t index)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, index);
	bool inside;

	if (IS_ERR(folio))
		return false;

	inside = folio->index < index;
	folio_put(folio);
	return inside;
}

/* See DOC.  @index is in the file. */
static void kvm_gmem_try_split(struct inode *inode, pgoff_t index)
{
	loff_t pos = (loff_t)index << PAGE_SHIFT;

	truncate_inode_pages_range(inode->i_mapping, pos,
				   pos + PAGE_SIZE / 2 - 1);
}

/*
 * Let no folio have the pages before and at @index.  Nothing maps the folio, or
 * can.  Return whether that is so now.
 */
bool kvm_gmem_split(struct inode *inode, pgoff_t index)
{
	int i;

	lockdep_assert(inode->i_state & I_FREEING ||
		       lockdep_is_held_type(&inode->i_mapping->invalidate_lock, 0));

	if (!mapping_large_folio_support(inode->i_mapping) ||
	    !(index % KVM_GMEM_BLOCK_PAGES))
		return true;

	/* A fault that is late drops its reference as soon as it notices. */
	for (i = 0; kvm_gmem_is_inside_folio(inode, index); i++) {
		if (i == KVM_GMEM_SPLIT_TRIES)
			return false;
		if (i)
			fsleep(KVM_GMEM_SPLIT_US);
		kvm_gmem_try_split(inode, index);
	}

	return true;
}

/*
 * As kvm_gmem_split(), for all pages of the folio with the one at @index, but wait
 * for nobody.  Return false at once if somebody has a reference.  Otherwise it was
 * tried, and the caller has to look.
 */
bool kvm_gmem_split_unpinned(struct inode *inode, pgoff_t index)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, index);
	bool large, pinned;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	if (IS_ERR(folio))
		return true;

	/* Mappings, the page cache and this function have one each. */
	large = folio_test_large(folio);
	pinned = folio_ref_count(folio) >
		 folio_mapcount(folio) + folio_nr_pages(folio) + 1;
	folio_put(folio);
	if (!large)
		return true;
	if (pinned)
		return false;

	kvm_gmem_try_split(inode, index);
	return true;
}

/*
 * Clear the pages [@start, @end) of @folio, which stays in the file until it can be
 * split.  What cannot be reclaimed is left alone: it is the guest's.
 */
static void kvm_gmem_clear_part(struct inode *inode, struct folio *folio,
				pgoff_t start, pgoff_t end)
{
	kvm_pfn_t pfn, first, last;

	first = folio_pfn(folio) + start - folio->index;
	last = first + end - start;

	if (folio_test_uptodate(folio)) {
		if (kvm_gmem_is_prepared(inode, start))
			last = kvm_arch_gmem_reclaim(first, last);

		for (pfn = first; pfn < last; pfn++) {
			if (!PageHWPoison(pfn_to_page(pfn)))
				clear_highpage(pfn_to_page(pfn));
			cond_resched();
		}
		kvm_gmem_test_keep(first, last);
	}

	if (first < last)
		kvm_gmem_defer_pages(inode, start, start + last - first);
}

/*
 * Before the pages [@start, @end) leave the file: let folios begin and end where
 * the range does.  If one cannot be split then clear its part, and let the range
 * begin after it or end before it.  A folio need not be all of a block: debugfs
 * lets root split them to any size.
 */
void kvm_gmem_trim_range(struct inode *inode, pgoff_t *start, pgoff_t *end)
{
	struct folio *folio;
	pgoff_t next;

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	if (!kvm_gmem_split(inode, *start)) {
		folio = filemap_get_folio(inode->i_mapping, *start);
		if (!IS_ERR(folio)) {
			next = min(folio_next_index(folio), *end);
			kvm_gmem_clear_part(inode, folio, *start, next);
			folio_put(folio);
			*start = next;
		}
	}

	if (*start < *end && !kvm_gmem_split(inode, *end)) {
		folio = filemap_get_folio(inode->i_mapping, *end - 1);
		if (!IS_ERR(folio)) {
			next = max(folio->index, *start);
			kvm_gmem_clear_part(inode, folio, next, *end);
			folio_put(folio);
			*end = next;
		}
	}
}

/* Split the huge folio at @index, which has a broken page, or lose all of it. */
static void kvm_gmem_isolate_folio(struct inode *inode, pgoff_t index)
{
	struct folio *folio;

	if (kvm_gmem_split(inode, index + 1))
		return;

	folio = filemap_get_folio(inode->i_mapping, index);
	if (IS_ERR(folio))
		return;

	kvm_gmem_leak_folio(folio);
	folio_put(folio);
}

/*
 * Before the pages [@start, @end) leave the file, with whole folios: the page
 * allocator keeps a broken page from its next user only if it is freed by itself.
 * mm has tried to split a huge folio when a page of it broke, but then somebody
 * may have had a reference to it.
 */
void kvm_gmem_isolate_broken(struct inode *inode, pgoff_t start, pgoff_t end)
{
	pgoff_t broken[PAGEVEC_SIZE];
	struct folio_batch batch;
	struct folio *folio;
	int i, nr;

	if (!mapping_large_folio_support(inode->i_mapping))
		return;

	folio_batch_init(&batch);

	while (filemap_get_folios(inode->i_mapping, &start, end - 1, &batch)) {
		nr = 0;
		for (i = 0; i < folio_batch_count(&batch); i++) {
			folio = batch.folios[i];
			if (folio_test_large(folio) &&
			    folio_test_has_hwpoisoned(folio))
				broken[nr++] = folio->index;
		}

		/* The batch has references, too. */
		folio_batch_release(&batch);
		while (nr--)
			kvm_gmem_isolate_folio(inode, broken[nr]);
		cond_resched();
	}
}
