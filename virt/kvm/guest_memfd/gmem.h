/* SPDX-License-Identifier: GPL-2.0 */
/*
 * guest_memfd's private header: the two objects, their locks, and what its
 * files share.
 *
 * Lock order, outermost first:
 *
 *	kvm->slots_lock
 *	  kvm->slots_arch_lock
 *	    inode->i_mapping->invalidate_lock
 *	      folio lock
 *	        gmem_inode.views_lock
 *	          kvm->srcu (read)
 *	            kvm->mmu_lock
 *	          kvm->gmem.lock
 *
 * Nothing waits for kvm->srcu readers while it holds an invalidate_lock, and
 * user memory is never touched under one.
 */
#ifndef __KVM_GMEM_H
#define __KVM_GMEM_H

#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/kvm_host.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>

/**
 * struct gmem_inode - memory, with its contents
 * @vfs_inode: i_mapping holds the folios, i_mapping->i_private_list the views
 * @views_lock: taken, inside @vfs_inode's invalidate_lock held for write, to
 *		change the list of views, a view's @kvm or its @bindings.  So
 *		either of the two is enough to walk them.  It exists for
 *		memory_failure(), which comes with a folio locked and hence may
 *		not take the invalidate_lock.
 *
 * Size and flags never change once the inode is there.
 */
struct gmem_inode {
	struct inode vfs_inode;
	/* inside the invalidate_lock, see above */
	struct mutex views_lock;
};

static inline struct gmem_inode *GMEM_I(struct inode *inode)
{
	return container_of(inode, struct gmem_inode, vfs_inode);
}

/**
 * struct gmem_file - one VM's view of a gmem_inode
 * @kvm: the VM; NULL in a dead view, whose VM is gone
 * @file: the file whose private_data this is; immutable
 * @bindings: &kvm_memory_slot.gmem.node of each memslot that maps a part of the
 *	      file, by page offset.  A memslot is in here only while it can be
 *	      reached by faults, and pins @file for as long as it is bound.
 * @inode_node: in the inode's i_mapping->i_private_list
 * @kvm_node: in @kvm's list of views, protected by &kvm_gmem_vm.lock
 *
 * @kvm, @bindings and @inode_node change under both the invalidate_lock (for
 * write) and &gmem_inode.views_lock.
 */
struct gmem_file {
	struct kvm *kvm;
	struct file *file;
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

/* inode.c */
int kvm_gmem_inode_init(struct module *module);
void kvm_gmem_inode_exit(void);
struct vfsmount *kvm_gmem_mnt_get(void);
void kvm_gmem_mnt_put(void);
struct inode *kvm_gmem_alloc_inode(struct super_block *sb, loff_t size);

/* file.c */
int kvm_gmem_create_fd(struct kvm *kvm, loff_t size);
struct gmem_file *kvm_gmem_file_view(struct file *file);
void kvm_gmem_detach_vm(struct kvm *kvm);

/* pfn.c */
long kvm_gmem_allocate(struct inode *inode, pgoff_t start, pgoff_t end);

/* invalidate.c: offsets in pages, [start, end) */
void kvm_gmem_invalidate_start(struct gmem_file *view, pgoff_t start,
			       pgoff_t end);
void kvm_gmem_invalidate_end(struct gmem_file *view, pgoff_t start,
			     pgoff_t end);
void kvm_gmem_punch_hole(struct inode *inode, pgoff_t start, pgoff_t end);
int kvm_gmem_error_folio(struct address_space *mapping, struct folio *folio);

#endif /* __KVM_GMEM_H */
