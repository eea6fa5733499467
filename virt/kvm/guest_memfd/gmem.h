/* SPDX-License-Identifier: GPL-2.0 */
/*
 * guest_memfd's private header: the two objects, their locks, and what its
 * files share.
 *
 * Lock order, outermost first:
 *
 *	kvm->lock
 *	  vcpu->mutex
 *	    kvm->slots_lock
 *	      kvm->slots_arch_lock	mm->mmap_lock (the host's faults, mbind())
 *	        inode->i_mapping->invalidate_lock
 *	          folio lock
 *	            gmem_inode.views_lock
 *	              kvm->srcu (read)
 *	                kvm->mmu_lock
 *	              kvm->gmem.lock
 *
 * Nothing waits for kvm->srcu readers while it holds an invalidate_lock, and
 * user memory is never touched under one.  Two inodes are never locked at once.
 * Two VMs are by a move only: see move.c.
 */
#ifndef __KVM_GMEM_H
#define __KVM_GMEM_H

#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/kvm_host.h>
#include <linux/mempolicy.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <uapi/linux/guest_memfd.h>

/**
 * enum gmem_view_state - what a view lets its VM and its descriptor do
 * @GMEM_VIEW_ACTIVE: everything that its flags allow
 * @GMEM_VIEW_PENDING: to be bound, and nothing else until it is active
 * @GMEM_VIEW_REVOKED: nothing, for good: a move gave the memory to another
 */
enum gmem_view_state {
	GMEM_VIEW_ACTIVE,
	GMEM_VIEW_PENDING,
	GMEM_VIEW_REVOKED,
};

/**
 * struct gmem_inode - memory, with its contents
 * @vfs_inode: i_mapping holds the folios, i_mapping->i_private_list the views
 * @views_lock: taken, inside @vfs_inode's invalidate_lock held for write, to
 *		change the list of views, a view's @kvm or its @bindings.  So
 *		either of the two is enough to walk them.  It exists for
 *		memory_failure(), which comes with a folio locked and hence may
 *		not take the invalidate_lock.
 * @nr_active: how many views are active and have a VM
 * @pending: the VM whose view is pending, or NULL; there is one at most
 * @flags: GUEST_MEMFD_FLAG_*, as the file was created with
 * @deferred: by block, the pages that a hole could not free; see deferred.c
 * @deferred_work: frees them
 * @policy: on which nodes which pages are to be allocated; has a lock of its own
 *
 * @nr_active and @pending change as the views do, but a move reads them under
 * neither lock.
 *
 * Size and flags never change once the inode is there.
 */
struct gmem_inode {
	struct inode vfs_inode;
	/* inside the invalidate_lock, see above */
	struct mutex views_lock;
	unsigned int nr_active;
	struct kvm *pending;
	u64 flags;
	struct xarray deferred;
	struct delayed_work deferred_work;
#ifdef CONFIG_KVM_GMEM_NUMA
	struct shared_policy policy;
#endif
};

static inline struct gmem_inode *GMEM_I(struct inode *inode)
{
	return container_of(inode, struct gmem_inode, vfs_inode);
}

/**
 * struct gmem_file - one VM's view of a gmem_inode
 * @kvm: the VM; NULL in a dead view, whose VM is gone
 * @file: the file whose private_data this is; immutable
 * @flags: KVM_LINK_GUEST_MEMFD_READONLY and _NO_FALLOCATE: rights that the view
 *	   does not have; immutable
 * @state: what the view is good for now
 * @bindings: &kvm_memory_slot.gmem.node of each memslot that maps a part of the
 *	      file, by page offset.  A memslot is in here only while it can be
 *	      reached by faults, and pins @file for as long as it is bound.
 * @inode_node: in the inode's i_mapping->i_private_list
 * @kvm_node: in @kvm's list of views, protected by &kvm_gmem_vm.lock
 *
 * @kvm, @state, @bindings and @inode_node change under both the
 * invalidate_lock (for write) and &gmem_inode.views_lock.
 */
struct gmem_file {
	struct kvm *kvm;
	struct file *file;
	u64 flags;
	enum gmem_view_state state;
	struct rb_root_cached bindings;
	struct list_head inode_node;
	struct list_head kvm_node;
};

#define kvm_gmem_for_each_file(view, inode)				\
	list_for_each_entry(view, &(inode)->i_mapping->i_private_list,	\
			    inode_node)

DEFINE_GUARD(gmem_invalidate, struct address_space *,
	     filemap_invalidate_lock(_T), filemap_invalidate_unlock(_T))
DEFINE_GUARD(gmem_invalidate_shared, struct address_space *,
	     filemap_invalidate_lock_shared(_T),
	     filemap_invalidate_unlock_shared(_T))

static inline void kvm_gmem_assert_views_stable(struct inode *inode)
{
	lockdep_assert(lockdep_is_held(&inode->i_mapping->invalidate_lock) ||
		       lockdep_is_held(&GMEM_I(inode)->views_lock));
}

static inline void kvm_gmem_assert_views_writable(struct inode *inode)
{
	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);
	lockdep_assert_held(&GMEM_I(inode)->views_lock);
}

/* Whether @view's VM may map, and hence use, the memory. */
static inline bool kvm_gmem_may_map(struct gmem_file *view)
{
	kvm_gmem_assert_views_stable(file_inode(view->file));

	return view->state == GMEM_VIEW_ACTIVE;
}

/* Whether memory may be allocated, filled or given back through @view. */
static inline bool kvm_gmem_may_change(struct gmem_file *view)
{
	return kvm_gmem_may_map(view) &&
	       !(view->flags & KVM_LINK_GUEST_MEMFD_NO_FALLOCATE);
}

/*
 * After a memslot was zapped, and before the next one is: let others have the
 * mmu_lock, or the CPU, if they wait for it.  They must not find a TLB that has
 * what SPTEs have no more, nor must those that get the lock while the next memslot
 * is zapped, which flushes for itself alone: who finds no SPTE frees the page.
 *
 * What is to be zapped yet may be mapped meanwhile, and is zapped then.
 */
static inline void kvm_gmem_end_zap(struct kvm *kvm, bool flush)
{
	lockdep_assert_held_write(&kvm->mmu_lock);

	if (flush)
		kvm_flush_remote_tlbs(kvm);
	cond_resched_rwlock_write(&kvm->mmu_lock);
}

/*
 * At the end of a zap: another one, KVM's own for instance, may have zapped the
 * same, have let go of the mmu_lock, and not have flushed yet.
 */
static inline void kvm_gmem_flush_others(struct kvm *kvm)
{
	lockdep_assert_held_write(&kvm->mmu_lock);

	if (kvm->mmu_invalidate_in_progress > 1)
		kvm_flush_remote_tlbs(kvm);
}

/* What is as large as a huge page, and naturally aligned, of file or guest */
#define KVM_GMEM_BLOCK_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#define KVM_GMEM_BLOCK_PAGES	BIT(KVM_GMEM_BLOCK_ORDER)

/* main.c */
int kvm_gmem_lock_vm(struct kvm *kvm);

/* inode.c */
int kvm_gmem_inode_init(struct module *module);
void kvm_gmem_inode_exit(void);
struct vfsmount *kvm_gmem_mnt_get(void);
void kvm_gmem_mnt_put(void);
struct inode *kvm_gmem_alloc_inode(struct super_block *sb, loff_t size,
				   u64 flags);

/* file.c */
int kvm_gmem_create_fd(struct kvm *kvm, loff_t size, u64 flags);
struct file *kvm_gmem_alloc_file(struct inode *inode);
struct gmem_file *kvm_gmem_file_view(struct file *file);

/* view.c */
struct gmem_file *kvm_gmem_find_view(struct inode *inode, struct kvm *kvm);
void kvm_gmem_add_view(struct gmem_file *view, struct kvm *kvm);
void kvm_gmem_retire_view(struct gmem_file *view);
void kvm_gmem_detach_vm(struct kvm *kvm);
void kvm_gmem_revoke_vm(struct kvm *kvm);

/* move.c */
void kvm_gmem_zap_moved(struct work_struct *work);

/* mmap.c */
int kvm_gmem_mmap(struct file *file, struct vm_area_struct *vma);

/* policy.c */
int kvm_gmem_set_policy(struct vm_area_struct *vma, struct mempolicy *policy);
struct mempolicy *kvm_gmem_get_policy(struct vm_area_struct *vma,
				      unsigned long addr, pgoff_t *ilx);
#ifdef CONFIG_KVM_GMEM_NUMA
void kvm_gmem_init_policy(struct inode *inode);
void kvm_gmem_free_policy(struct inode *inode);
struct folio *kvm_gmem_alloc_folio(struct inode *inode, pgoff_t index,
				   unsigned int order, gfp_t gfp);
#else
static inline void kvm_gmem_init_policy(struct inode *inode)
{
}

static inline void kvm_gmem_free_policy(struct inode *inode)
{
}

static inline struct folio *kvm_gmem_alloc_folio(struct inode *inode,
						 pgoff_t index,
						 unsigned int order, gfp_t gfp)
{
	return filemap_alloc_folio(gfp, order);
}
#endif

/* huge.c */
void kvm_gmem_init_huge(struct inode *inode);
bool kvm_gmem_block_is_inside(struct inode *inode, pgoff_t index,
			      pgoff_t start, pgoff_t end);
bool kvm_gmem_block_is_mappable(struct kvm *kvm, struct kvm_memory_slot *slot,
				gfn_t gfn);
struct folio *kvm_gmem_add_huge_folio(struct inode *inode, pgoff_t index,
				      bool wait);
bool kvm_gmem_split(struct inode *inode, pgoff_t index);
bool kvm_gmem_split_unpinned(struct inode *inode, pgoff_t index);
void kvm_gmem_trim_range(struct inode *inode, pgoff_t *start, pgoff_t *end);
void kvm_gmem_isolate_broken(struct inode *inode, pgoff_t start, pgoff_t end);

/* deferred.c: offsets in pages, [start, end) */
void kvm_gmem_init_deferred(struct gmem_inode *gi);
void kvm_gmem_cancel_deferred(struct gmem_inode *gi);
void kvm_gmem_defer_pages(struct inode *inode, pgoff_t start, pgoff_t end);
bool kvm_gmem_is_deferred(struct inode *inode, pgoff_t index);
void kvm_gmem_forget_pages(struct inode *inode, pgoff_t start, pgoff_t end);
void __kvm_gmem_keep_pages(struct inode *inode, pgoff_t start, pgoff_t end);

/* The pages [@start, @end) are in use: they are not to be freed any more. */
static inline void kvm_gmem_keep_pages(struct inode *inode, pgoff_t start,
				       pgoff_t end)
{
	if (unlikely(!xa_empty(&GMEM_I(inode)->deferred)))
		__kvm_gmem_keep_pages(inode, start, end);
}

/* pfn.c */

struct folio *kvm_gmem_grab_folio(struct inode *inode, pgoff_t index,
				  bool huge);
void kvm_gmem_fill_folio(struct folio *folio);
long kvm_gmem_allocate(struct gmem_file *view, pgoff_t start, pgoff_t end);

/* reclaim.c */
extern atomic_t kvm_gmem_leaked_pages;

bool kvm_gmem_is_prepared(struct inode *inode, pgoff_t index);
void kvm_gmem_set_prepared(struct inode *inode, pgoff_t index);
void kvm_gmem_leak_folio(struct folio *folio);
void kvm_gmem_reclaim_pages(struct inode *inode, pgoff_t start, pgoff_t end);
void kvm_gmem_reclaim_init(struct dentry *dir);

/* invalidate.c: offsets in pages, [start, end) */
void kvm_gmem_invalidate_start(struct gmem_file *view, pgoff_t start,
			       pgoff_t end);
void kvm_gmem_invalidate_end(struct gmem_file *view, pgoff_t start,
			     pgoff_t end);
void kvm_gmem_remove_pages(struct inode *inode, pgoff_t start, pgoff_t end);
int kvm_gmem_punch_hole(struct gmem_file *view, pgoff_t start, pgoff_t end);
int kvm_gmem_error_folio(struct address_space *mapping, struct folio *folio);

/* test.c */

/* What can be made to fail */
enum gmem_fail_point {
	GMEM_FAIL_BIND,		/* storing a memslot's binding */
	GMEM_FAIL_GRAB,		/* having a page, for a fault also one that is there */
	GMEM_FAIL_PREPARE,	/* what the model does in place of hardware ... */
	GMEM_FAIL_RECLAIM,
	GMEM_FAIL_MOVE,
	GMEM_NR_FAIL_POINTS,
};

#ifdef CONFIG_KVM_GMEM_TEST
bool kvm_gmem_test_should_fail(enum gmem_fail_point point);
int kvm_gmem_test_init(struct dentry *dir);
void kvm_gmem_test_exit(void);
void kvm_gmem_test_init_vm(struct kvm *kvm);
void kvm_gmem_test_destroy_vm(struct kvm *kvm);
void kvm_gmem_test_keep(kvm_pfn_t start, kvm_pfn_t end);
void kvm_gmem_test_leak(kvm_pfn_t start, kvm_pfn_t end);
void kvm_gmem_test_zap(struct gmem_file *view, pgoff_t start, pgoff_t end);
void kvm_gmem_test_unbind(struct gmem_file *view, pgoff_t start, pgoff_t last);
#else
static inline bool kvm_gmem_test_should_fail(enum gmem_fail_point point)
{
	return false;
}

static inline int kvm_gmem_test_init(struct dentry *dir)
{
	return 0;
}

static inline void kvm_gmem_test_exit(void)
{
}

static inline void kvm_gmem_test_init_vm(struct kvm *kvm)
{
}

static inline void kvm_gmem_test_destroy_vm(struct kvm *kvm)
{
}

static inline void kvm_gmem_test_keep(kvm_pfn_t start, kvm_pfn_t end)
{
}

static inline void kvm_gmem_test_leak(kvm_pfn_t start, kvm_pfn_t end)
{
}

static inline void kvm_gmem_test_zap(struct gmem_file *view, pgoff_t start,
				     pgoff_t end)
{
}

static inline void kvm_gmem_test_unbind(struct gmem_file *view, pgoff_t start,
					pgoff_t last)
{
}
#endif /* CONFIG_KVM_GMEM_TEST */

#endif /* __KVM_GMEM_H */
