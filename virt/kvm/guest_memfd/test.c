// SPDX-License-Identifier: GPL-2.0
/*
 * The ownership model: what confidential hardware knows of pages, in software.
 */

/**
 * DOC: Ownership model
 *
 * AMD's RMP and Intel's PAMT know of each page whether it is a guest's, of which
 * guest, and at which gfn.  What contradicts that is an error, which kills the
 * guest or the host, on machines that few have.  The model makes it an error on
 * all others: %CONFIG_KVM_GMEM_TEST puts it where the architecture asks the
 * hardware, if there is none.
 *
 * A page is unknown, assigned to an owner, or reclaimed; when the page allocator
 * gets it, it is unknown again.  (A probe on the mm_page_free tracepoint sees
 * that, whoever frees the page.)  An owner has a number, like an ASID.  It is the
 * virtual machine: a move gives it to another &struct kvm, and the number is not
 * free before all pages are.
 *
 * Memory that is not tied to one VM by hardware can do more: VMs share it, and
 * it outlives them.  So a page that is another VM's may be prepared if both VMs'
 * views of it are active ("shared"), or if the other VM has no active view any
 * more ("inherited").  With the knob "tied" the model is as strict as hardware.
 *
 * What is refused is counted, and logged as "kvm_gmem: violation".
 */

#include <linux/cc_platform.h>
#include <linux/hash.h>
#include <linux/idr.h>
#include <linux/pagevec.h>
#include <linux/tracepoint.h>

#include "gmem.h"
#include "test.h"

/* A test must not fail for want of memory that only the test needs. */
#define GMEM_TEST_GFP	(GFP_KERNEL | __GFP_NOFAIL)

#define GMEM_TEST_NO_GFN	((gfn_t)-1)

/**
 * struct gmem_test_page - a page that is known
 * @owner: whose it is, or was before it was reclaimed
 * @gfn: where @owner has it, or GMEM_TEST_NO_GFN once that memslot is gone
 * @mapped: VMs that may map it, by a hash of their address
 * @shared: another VM has it as well
 * @reclaimed: it is the host's, and on its way to the page allocator
 * @leaked: it is @owner's for good
 *
 * Protected by gmem_test_lock.
 */
struct gmem_test_page {
	struct gmem_test_owner *owner;
	gfn_t gfn;
	u64 mapped;
	bool shared;
	bool reclaimed;
	bool leaked;
};

atomic_long_t gmem_test_violations[GMEM_TEST_NR_VIOLATIONS];
atomic_long_t gmem_test_transitions[GMEM_TEST_NR_TRANSITIONS];
LIST_HEAD(gmem_test_owners);

/* Protects owners and pages.  Pages can be freed in any context. */
DEFINE_SPINLOCK(gmem_test_lock);

static DEFINE_XARRAY_FLAGS(gmem_test_pages, XA_FLAGS_LOCK_IRQ);
static struct kmem_cache *gmem_test_page_cache;
static DEFINE_IDA(gmem_test_numbers);
static struct tracepoint *gmem_test_free_event;

static const char * const gmem_test_violation_text[] = {
	[GMEM_TEST_UNPREPARED]		= "mapped without being prepared",
	[GMEM_TEST_SECOND_OWNER]	= "has another owner",
	[GMEM_TEST_WRONG_GFN]		= "is at another gfn",
	[GMEM_TEST_FREE_ASSIGNED]	= "freed while assigned",
	[GMEM_TEST_OWNER_REUSED]	= "left by an owner whose number is free",
	[GMEM_TEST_MOVED_OWNER]		= "was moved to another owner",
	[GMEM_TEST_NOT_ASSIGNED]	= "is not assigned",
	[GMEM_TEST_MAPPED]		= "reclaimed while mapped",
};

static void gmem_test_violate(enum gmem_test_violation what, kvm_pfn_t pfn,
			      gfn_t gfn)
{
	atomic_long_inc(&gmem_test_violations[what]);
	pr_err_ratelimited("kvm_gmem: violation: pfn 0x%llx, gfn 0x%llx: %s\n",
			   pfn, gfn, gmem_test_violation_text[what]);
}

static void gmem_test_count(struct gmem_test_owner *owner,
			    enum gmem_test_transition what)
{
	lockdep_assert_held(&gmem_test_lock);

	owner->count[what]++;
	atomic_long_inc(&gmem_test_transitions[what]);
}

struct gmem_test_owner *gmem_test_new_owner(struct kvm *kvm, bool tied)
{
	struct gmem_test_owner *owner = kzalloc(sizeof(*owner), GMEM_TEST_GFP);

	owner->kvm = kvm;
	owner->tied = tied;
	owner->number = ida_alloc_min(&gmem_test_numbers, 1, GMEM_TEST_GFP);

	guard(spinlock_irqsave)(&gmem_test_lock);
	list_add_tail(&owner->node, &gmem_test_owners);
	return owner;
}

/* Whether @owner is now to be freed, which the caller does. */
static bool gmem_test_owner_ends(struct gmem_test_owner *owner)
{
	lockdep_assert_held(&gmem_test_lock);

	if (owner->kvm || owner->nr_pages)
		return false;

	list_del(&owner->node);
	return true;
}

static void gmem_test_free_owner(struct gmem_test_owner *owner)
{
	ida_free(&gmem_test_numbers, owner->number);
	kfree(owner);
}

/* The VM is gone. */
void gmem_test_owner_gone(struct gmem_test_owner *owner)
{
	bool ends;

	scoped_guard(spinlock_irqsave, &gmem_test_lock) {
		if (owner->tied && owner->nr_assigned)
			gmem_test_violate(GMEM_TEST_OWNER_REUSED, 0, 0);

		owner->kvm = NULL;
		ends = gmem_test_owner_ends(owner);
	}

	if (ends)
		gmem_test_free_owner(owner);
}

/* @kvm's owner; a new one, if it has none. */
struct gmem_test_owner *gmem_test_vm_owner(struct kvm *kvm)
{
	struct gmem_test_owner *owner, *old;

	owner = READ_ONCE(kvm->gmem.test.owner);
	if (owner)
		return owner;

	owner = gmem_test_new_owner(kvm, kvm->gmem.test.tied);
	old = cmpxchg(&kvm->gmem.test.owner, NULL, owner);
	if (!old)
		return owner;

	gmem_test_owner_gone(owner);
	return old;
}

static void gmem_test_assign_unknown(struct gmem_test_owner *owner, gfn_t gfn,
				     kvm_pfn_t pfn)
{
	struct gmem_test_page *page = kmem_cache_zalloc(gmem_test_page_cache,
							GMEM_TEST_GFP);

	page->owner = owner;
	page->gfn = gfn;

	scoped_guard(spinlock_irqsave, &gmem_test_lock) {
		owner->nr_pages++;
		owner->nr_assigned++;
		gmem_test_count(owner, GMEM_TEST_ASSIGNED);
	}

	xa_store_irq(&gmem_test_pages, pfn, page, GMEM_TEST_GFP);
}

static int gmem_test_assign_own(struct gmem_test_page *page, gfn_t gfn,
				kvm_pfn_t pfn)
{
	lockdep_assert_held(&gmem_test_lock);

	if (page->gfn == gfn)
		return 0;

	if (page->gfn != GMEM_TEST_NO_GFN) {
		gmem_test_violate(GMEM_TEST_WRONG_GFN, pfn, gfn);
		return -EPERM;
	}

	page->gfn = gfn;
	gmem_test_count(page->owner, GMEM_TEST_REBOUND);
	return 0;
}

static int gmem_test_assign_others(struct gmem_test_page *page,
				   struct gmem_test_owner *owner, gfn_t gfn,
				   kvm_pfn_t pfn, enum gmem_test_claim claim)
{
	lockdep_assert_held(&gmem_test_lock);

	switch (claim) {
	case GMEM_TEST_CLAIM_INHERIT:
		page->owner->nr_pages--;
		page->owner->nr_assigned--;
		page->owner = owner;
		page->gfn = gfn;
		owner->nr_pages++;
		owner->nr_assigned++;
		gmem_test_count(owner, GMEM_TEST_INHERITED);
		return 0;
	case GMEM_TEST_CLAIM_SHARE:
		if (!page->shared)
			gmem_test_count(owner, GMEM_TEST_SHARED);
		page->shared = true;
		return 0;
	case GMEM_TEST_CLAIM_REVOKED:
		gmem_test_violate(GMEM_TEST_MOVED_OWNER, pfn, gfn);
		return -EPERM;
	case GMEM_TEST_CLAIM_NONE:
		gmem_test_violate(GMEM_TEST_SECOND_OWNER, pfn, gfn);
		return -EPERM;
	}

	return -EINVAL;
}

/*
 * Make the page at @pfn @owner's, at @gfn; again, if it is.  @claim is for pages
 * that are another's.  -EPERM: a violation.
 */
int gmem_test_assign(struct gmem_test_owner *owner, gfn_t gfn, kvm_pfn_t pfn,
		     enum gmem_test_claim claim)
{
	struct gmem_test_owner *old = NULL;
	struct gmem_test_page *page;
	int r;

	page = xa_load(&gmem_test_pages, pfn);
	if (!page) {
		gmem_test_assign_unknown(owner, gfn, pfn);
		return 0;
	}

	scoped_guard(spinlock_irqsave, &gmem_test_lock) {
		if (page->reclaimed) {
			gmem_test_violate(GMEM_TEST_NOT_ASSIGNED, pfn, gfn);
			r = -EPERM;
		} else if (page->owner == owner) {
			r = gmem_test_assign_own(page, gfn, pfn);
		} else {
			old = page->owner;
			r = gmem_test_assign_others(page, owner, gfn, pfn,
						    claim);
			if (!gmem_test_owner_ends(old))
				old = NULL;
		}
	}

	if (old)
		gmem_test_free_owner(old);
	return r;
}

/* The page at @pfn is about to be mapped.  False: a violation. */
bool gmem_test_map(struct gmem_test_owner *owner, gfn_t gfn, kvm_pfn_t pfn,
		   u64 vm_bit)
{
	struct gmem_test_page *page;

	guard(spinlock_irqsave)(&gmem_test_lock);

	page = xa_load(&gmem_test_pages, pfn);
	if (!page || page->reclaimed)
		gmem_test_violate(GMEM_TEST_UNPREPARED, pfn, gfn);
	else if (page->owner != owner && !page->shared)
		gmem_test_violate(GMEM_TEST_SECOND_OWNER, pfn, gfn);
	else if (page->owner == owner && page->gfn != gfn)
		gmem_test_violate(GMEM_TEST_WRONG_GFN, pfn, gfn);
	else
		page->mapped |= vm_bit;

	return page && page->mapped & vm_bit;
}

/* Forget the page at @pfn. */
static void gmem_test_forget(kvm_pfn_t pfn)
{
	struct gmem_test_owner *owner;
	struct gmem_test_page *page;
	unsigned long flags;
	bool ends;

	xa_lock_irqsave(&gmem_test_pages, flags);
	page = __xa_erase(&gmem_test_pages, pfn);
	xa_unlock_irqrestore(&gmem_test_pages, flags);
	if (!page)
		return;

	scoped_guard(spinlock_irqsave, &gmem_test_lock) {
		owner = page->owner;
		owner->nr_pages--;
		if (!page->reclaimed && !page->leaked)
			owner->nr_assigned--;
		ends = gmem_test_owner_ends(owner);
	}

	kmem_cache_free(gmem_test_page_cache, page);
	if (ends)
		gmem_test_free_owner(owner);
}

/* Take back what gmem_test_assign() has just done. */
void gmem_test_undo(kvm_pfn_t pfn)
{
	struct gmem_test_page *page = xa_load(&gmem_test_pages, pfn);

	if (!page)
		return;

	scoped_guard(spinlock_irqsave, &gmem_test_lock)
		gmem_test_count(page->owner, GMEM_TEST_UNDONE);
	gmem_test_forget(pfn);
}

static void gmem_test_set_reclaimed(struct gmem_test_page *page)
{
	lockdep_assert_held(&gmem_test_lock);

	page->reclaimed = true;
	if (!page->leaked)
		page->owner->nr_assigned--;
	page->leaked = false;
	gmem_test_count(page->owner, GMEM_TEST_RECLAIMED);
}

static bool gmem_test_may_be_huge(kvm_pfn_t pfn)
{
	struct address_space *mapping = pfn_folio(pfn)->mapping;

	return mapping && mapping_large_folio_support(mapping);
}

/* False: the page is lost. */
static bool gmem_test_reclaim_page(kvm_pfn_t pfn)
{
	bool fail = kvm_gmem_test_should_fail(GMEM_FAIL_RECLAIM);
	struct gmem_test_page *page;

	guard(spinlock_irqsave)(&gmem_test_lock);

	page = xa_load(&gmem_test_pages, pfn);
	/* The guest has used a huge folio as small pages, and not all of them. */
	if (!page && gmem_test_may_be_huge(pfn))
		return true;

	if (!page || page->reclaimed) {
		gmem_test_violate(GMEM_TEST_NOT_ASSIGNED, pfn, 0);
		return true;
	}

	if (page->mapped)
		gmem_test_violate(GMEM_TEST_MAPPED, pfn, page->gfn);

	if (!fail)
		gmem_test_set_reclaimed(page);
	return !fail;
}

/* As kvm_arch_gmem_reclaim(). */
kvm_pfn_t kvm_gmem_test_reclaim(kvm_pfn_t start, kvm_pfn_t end)
{
	kvm_pfn_t pfn;

	for (pfn = start; pfn < end; pfn++) {
		if (!gmem_test_reclaim_page(pfn))
			return pfn;
		gmem_test_record(pfn);
	}

	return end;
}

/* The pages [@start, @end), which were reclaimed, stay where they are. */
void kvm_gmem_test_keep(kvm_pfn_t start, kvm_pfn_t end)
{
	kvm_pfn_t pfn;

	for (pfn = start; pfn < end; pfn++)
		gmem_test_forget(pfn);
}

/* Nobody will ever use the pages [@start, @end), not even those reclaimed. */
void kvm_gmem_test_leak(kvm_pfn_t start, kvm_pfn_t end)
{
	struct gmem_test_page *page;
	kvm_pfn_t pfn;

	guard(spinlock_irqsave)(&gmem_test_lock);

	for (pfn = start; pfn < end; pfn++) {
		page = xa_load(&gmem_test_pages, pfn);
		if (!page)
			continue;

		if (!page->reclaimed)
			page->owner->nr_assigned--;
		page->reclaimed = false;
		page->leaked = true;
		gmem_test_count(page->owner, GMEM_TEST_LEAKED);
	}
}

/* The page allocator gets a page, of whoever's. */
static void gmem_test_page_free(void *unused, struct page *page,
				unsigned int order)
{
	kvm_pfn_t pfn = page_to_pfn(page);
	kvm_pfn_t end = pfn + (1UL << order);
	struct gmem_test_page *known;

	for (; pfn < end; pfn++) {
		known = xa_load(&gmem_test_pages, pfn);
		if (!known)
			continue;

		scoped_guard(spinlock_irqsave, &gmem_test_lock) {
			if (known->reclaimed)
				gmem_test_count(known->owner, GMEM_TEST_FREED);
			else
				gmem_test_violate(GMEM_TEST_FREE_ASSIGNED, pfn,
						  known->gfn);
		}
		gmem_test_forget(pfn);
	}
}

/* The model need not know all pages of @folio, which was leaked as a whole. */
static void gmem_test_restore_folio(struct folio *folio)
{
	long i, nr = folio_nr_pages(folio);
	struct gmem_test_page *page;

	scoped_guard(spinlock_irqsave, &gmem_test_lock) {
		for (i = 0; i < nr; i++) {
			page = xa_load(&gmem_test_pages, folio_pfn(folio) + i);
			if (page)
				gmem_test_set_reclaimed(page);
		}
	}

	atomic_sub(nr, &kvm_gmem_leaked_pages);
	folio_put(folio);
}

/* Let the page allocator have what was leaked, as if the machine booted. */
void gmem_test_restore(void)
{
	struct gmem_test_page *page;
	unsigned long pfn;
	bool leaked;

	xa_for_each(&gmem_test_pages, pfn, page) {
		/* Any but a leaked page may be freed just now. */
		scoped_guard(spinlock_irqsave, &gmem_test_lock) {
			page = xa_load(&gmem_test_pages, pfn);
			leaked = page && page->leaked;
		}

		if (leaked)
			gmem_test_restore_folio(pfn_folio(pfn));
	}
}

unsigned long gmem_test_nr_pages(void)
{
	struct gmem_test_page *page;
	unsigned long pfn, nr = 0;

	xa_for_each(&gmem_test_pages, pfn, page)
		nr++;
	return nr;
}

static u64 gmem_test_vm_bit(struct kvm *kvm)
{
	return BIT_ULL(hash_ptr(kvm, 6));
}

/* What @kvm may do with @page of @inode, which is another's. */
static enum gmem_test_claim gmem_test_claim_of(struct kvm *kvm,
					       struct gmem_test_page *page,
					       struct inode *inode)
{
	struct gmem_file *mine = kvm_gmem_find_view(inode, kvm);
	struct gmem_file *others = NULL;
	struct kvm *other;

	if (mine && mine->state == GMEM_VIEW_REVOKED)
		return GMEM_TEST_CLAIM_REVOKED;

	if (kvm->gmem.test.tied || !mine || mine->state != GMEM_VIEW_ACTIVE)
		return GMEM_TEST_CLAIM_NONE;

	other = READ_ONCE(page->owner->kvm);
	if (other)
		others = kvm_gmem_find_view(inode, other);
	if (!others || others->state == GMEM_VIEW_PENDING)
		return GMEM_TEST_CLAIM_INHERIT;

	/* A move that forgot to move the owner. */
	if (others->state == GMEM_VIEW_REVOKED)
		return GMEM_TEST_CLAIM_REVOKED;

	return GMEM_TEST_CLAIM_SHARE;
}

static int gmem_test_prepare_page(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn)
{
	struct gmem_test_owner *owner = gmem_test_vm_owner(kvm);
	enum gmem_test_claim claim = GMEM_TEST_CLAIM_NONE;
	struct gmem_test_page *page;
	struct inode *inode;

	/* The folio is locked: its page goes nowhere meanwhile. */
	page = xa_load(&gmem_test_pages, pfn);
	if (page && page->owner != owner) {
		inode = pfn_folio(pfn)->mapping->host;
		claim = gmem_test_claim_of(kvm, page, inode);
	}

	return gmem_test_assign(owner, gfn, pfn, claim);
}

/* As kvm_arch_gmem_prepare(). */
int kvm_gmem_test_prepare(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn, int order)
{
	gfn_t npages = 1UL << order;
	gfn_t i;
	int r;

	if (kvm_gmem_test_should_fail(GMEM_FAIL_PREPARE))
		return -EPERM;

	gfn = round_down(gfn, npages);
	pfn = round_down(pfn, npages);

	for (i = 0; i < npages; i++) {
		r = gmem_test_prepare_page(kvm, gfn + i, pfn + i);
		if (r)
			return r;
	}

	return 0;
}

/**
 * kvm_gmem_test_map - check pages that are about to be mapped
 * @kvm: the VM, whose mmu_lock is held
 * @gfn: where a page is mapped
 * @pfn: the page
 * @npages: how many may be mapped with it, which is a power of two
 *
 * Return: false if that would be a violation, of which the VM dies.
 */
bool kvm_gmem_test_map(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn, gfn_t npages)
{
	gfn_t i;

	lockdep_assert_held(&kvm->mmu_lock);

	if (cc_platform_has(CC_ATTR_HOST_SEV_SNP))
		return true;

	gfn = round_down(gfn, npages);
	pfn = round_down(pfn, npages);

	for (i = 0; i < npages; i++) {
		if (!gmem_test_map(kvm->gmem.test.owner, gfn + i, pfn + i,
				   gmem_test_vm_bit(kvm))) {
			kvm_vm_dead(kvm);
			return false;
		}
	}

	return true;
}

/* Call @fn for the known ones of the pages of @folio in [@start, @last]. */
static void gmem_test_for_folio(struct folio *folio, pgoff_t start,
				pgoff_t last, struct kvm *kvm,
				void (*fn)(struct kvm *kvm,
					   struct gmem_test_page *page))
{
	struct gmem_test_page *page;
	pgoff_t index;

	start = max(start, folio->index);
	last = min(last, folio_next_index(folio) - 1);

	guard(spinlock_irqsave)(&gmem_test_lock);

	for (index = start; index <= last; index++) {
		page = xa_load(&gmem_test_pages,
			       folio_pfn(folio) + index - folio->index);
		if (page)
			fn(kvm, page);
	}
}

/* Call @fn for the known ones of the pages [@start, @last] of @mapping. */
static void gmem_test_for_pages(struct address_space *mapping, pgoff_t start,
				pgoff_t last, struct kvm *kvm,
				void (*fn)(struct kvm *kvm,
					   struct gmem_test_page *page))
{
	struct folio_batch batch;
	pgoff_t next = start;
	int i;

	folio_batch_init(&batch);

	while (filemap_get_folios(mapping, &next, last, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++)
			gmem_test_for_folio(batch.folios[i], start, last, kvm,
					    fn);
		folio_batch_release(&batch);
	}
}

static void gmem_test_zap_page(struct kvm *kvm, struct gmem_test_page *page)
{
	page->mapped &= ~gmem_test_vm_bit(kvm);
}

/* @view's VM has zapped what it mapped of the pages [@start, @end). */
void kvm_gmem_test_zap(struct gmem_file *view, pgoff_t start, pgoff_t end)
{
	gmem_test_for_pages(view->file->f_mapping, start, end - 1, view->kvm,
			    gmem_test_zap_page);
}

static void gmem_test_unbind_page(struct kvm *kvm, struct gmem_test_page *page)
{
	gmem_test_zap_page(kvm, page);
	if (page->owner == kvm->gmem.test.owner)
		page->gfn = GMEM_TEST_NO_GFN;
}

/* No memslot maps the pages [@start, @last] through @view any more. */
void kvm_gmem_test_unbind(struct gmem_file *view, pgoff_t start, pgoff_t last)
{
	gmem_test_for_pages(view->file->f_mapping, start, last, view->kvm,
			    gmem_test_unbind_page);
}

/* As kvm_arch_gmem_move(). */
int kvm_gmem_test_move(struct kvm *dst, struct kvm *src)
{
	struct gmem_test_owner *old = dst->gmem.test.owner;
	struct gmem_test_owner *owner;

	if (dst->gmem.test.tied != src->gmem.test.tied)
		return -EINVAL;

	if (kvm_gmem_test_should_fail(GMEM_FAIL_MOVE))
		return -EIO;

	owner = gmem_test_vm_owner(src);

	scoped_guard(spinlock_irqsave, &gmem_test_lock) {
		dst->gmem.test.owner = owner;
		src->gmem.test.owner = NULL;
		WRITE_ONCE(owner->kvm, dst);
		gmem_test_count(owner, GMEM_TEST_MOVED);
	}

	/* What the destination may have left to others is inherited by them. */
	if (old)
		gmem_test_owner_gone(old);
	return 0;
}

bool kvm_gmem_test_is_tied(struct kvm *kvm)
{
	return kvm->gmem.test.tied;
}

void kvm_gmem_test_init_vm(struct kvm *kvm)
{
	kvm->gmem.test.tied = gmem_test_tied();
}

/* @kvm has no views any more. */
void kvm_gmem_test_destroy_vm(struct kvm *kvm)
{
	if (kvm->gmem.test.owner)
		gmem_test_owner_gone(kvm->gmem.test.owner);
}

static void gmem_test_find_event(struct tracepoint *event, void *unused)
{
	if (!strcmp(event->name, "mm_page_free"))
		gmem_test_free_event = event;
}

int kvm_gmem_test_init(struct dentry *dir)
{
	int r;

	for_each_kernel_tracepoint(gmem_test_find_event, NULL);
	if (!gmem_test_free_event)
		return -ENOENT;

	/*
	 * A huge folio has many.  For each kmemleak would allocate something that
	 * can be made to fail.
	 */
	gmem_test_page_cache = KMEM_CACHE(gmem_test_page, SLAB_NOLEAKTRACE);
	if (!gmem_test_page_cache)
		return -ENOMEM;

	r = tracepoint_probe_register(gmem_test_free_event,
				      gmem_test_page_free, NULL);
	if (r) {
		kmem_cache_destroy(gmem_test_page_cache);
		return r;
	}

	gmem_test_debugfs_init(dir);
	return 0;
}

void kvm_gmem_test_exit(void)
{
	struct gmem_test_page *page;
	bool empty = true;
	unsigned long pfn;

	gmem_test_debugfs_exit();
	tracepoint_probe_unregister(gmem_test_free_event, gmem_test_page_free,
				    NULL);
	tracepoint_synchronize_unregister();

	/* Somebody may have a reference yet to what was reclaimed. */
	xa_for_each(&gmem_test_pages, pfn, page) {
		empty &= page->reclaimed;
		gmem_test_forget(pfn);
	}
	if (!empty || !list_empty(&gmem_test_owners))
		pr_err("kvm_gmem: model not empty\n");

	xa_destroy(&gmem_test_pages);
	kmem_cache_destroy(gmem_test_page_cache);
	ida_destroy(&gmem_test_numbers);
}
