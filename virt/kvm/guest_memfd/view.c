// SPDX-License-Identifier: GPL-2.0
/*
 * The view: what it lets its VM do, and how the two part.
 */

/**
 * DOC: Views
 *
 * A view that was created is *active*: its VM may map the memory.  One that was
 * linked may be *pending* instead: it can be bound to memslots, and no more.
 * Either is *dead* once its VM is gone.  A dead view has no bindings and never
 * gets a VM or bindings again, but its descriptor still names the memory, with
 * the rights that its state gives.
 *
 * Memory has one pending view of a living VM at most, and only while it has an
 * active one of a living VM.  When the last such goes, the pending one becomes
 * active; or, if there is none, those whose VM died while they were pending.  So
 * memory has an owner for as long as anybody could be one.
 *
 * A move *revokes* every view but the pending one, which thus becomes active.  A
 * revoked view has no right for ever.  That includes dead views: the destination
 * of a move need not trust whoever had the memory before.
 *
 * A VM's death, or a move, and a file's last close may meet.  All take the
 * inode's invalidate_lock before they touch the view, so that the one finds it
 * gone from the VM's list or the other finds it dead.  A VM reaches its inodes by
 * the files' paths: a view stays on its VM's list until the file's release(), and
 * a file keeps its path until after that.
 */

#include <linux/path.h>

#include "gmem.h"

/* @kvm's view of @inode, or NULL.  There is one at most. */
struct gmem_file *kvm_gmem_find_view(struct inode *inode, struct kvm *kvm)
{
	struct gmem_file *view;

	kvm_gmem_assert_views_stable(inode);

	kvm_gmem_for_each_file(view, inode) {
		if (view->kvm == kvm)
			return view;
	}

	return NULL;
}

/* Give @view, whose state and flags are set, to @kvm. */
void kvm_gmem_add_view(struct gmem_file *view, struct kvm *kvm)
{
	struct inode *inode = file_inode(view->file);
	struct gmem_inode *gi = GMEM_I(inode);

	guard(mutex)(&gi->views_lock);
	kvm_gmem_assert_views_writable(inode);

	view->kvm = kvm;
	if (view->state == GMEM_VIEW_ACTIVE)
		WRITE_ONCE(gi->nr_active, gi->nr_active + 1);
	else
		WRITE_ONCE(gi->pending, kvm);
	list_add_tail(&view->inode_node, &inode->i_mapping->i_private_list);

	spin_lock(&kvm->gmem.lock);
	list_add_tail(&view->kvm_node, &kvm->gmem.views);
	spin_unlock(&kvm->gmem.lock);
}

/* If no living VM's view is active, then the next in line is. */
static void kvm_gmem_activate_pending(struct inode *inode)
{
	struct gmem_inode *gi = GMEM_I(inode);
	struct gmem_file *view;

	kvm_gmem_assert_views_writable(inode);

	if (gi->nr_active)
		return;

	kvm_gmem_for_each_file(view, inode) {
		if (view->state != GMEM_VIEW_PENDING ||
		    view->kvm != gi->pending)
			continue;

		WRITE_ONCE(view->state, GMEM_VIEW_ACTIVE);
		if (view->kvm)
			WRITE_ONCE(gi->nr_active, gi->nr_active + 1);
	}

	WRITE_ONCE(gi->pending, NULL);
}

/* From here on @view is dead.  Its VM may be gone as soon as the locks are. */
static void kvm_gmem_disown_view(struct gmem_file *view)
{
	struct inode *inode = file_inode(view->file);
	struct gmem_inode *gi = GMEM_I(inode);
	struct kvm *kvm = view->kvm;

	kvm_gmem_assert_views_writable(inode);

	if (view->state == GMEM_VIEW_ACTIVE)
		WRITE_ONCE(gi->nr_active, gi->nr_active - 1);
	else if (view->state == GMEM_VIEW_PENDING)
		WRITE_ONCE(gi->pending, NULL);
	WRITE_ONCE(view->kvm, NULL);

	spin_lock(&kvm->gmem.lock);
	list_del(&view->kvm_node);
	spin_unlock(&kvm->gmem.lock);

	kvm_gmem_activate_pending(inode);
}

static void kvm_gmem_drop_bindings(struct gmem_file *view)
{
	struct interval_tree_node *node;

	kvm_gmem_assert_views_writable(file_inode(view->file));

	kvm_gmem_test_unbind(view, 0, ULONG_MAX);

	while ((node = interval_tree_iter_first(&view->bindings, 0,
						ULONG_MAX))) {
		interval_tree_remove(node, &view->bindings);
		RB_CLEAR_NODE(&node->rb);
	}
}

/*
 * Part @view from its VM.  Memory that must not outlive the VM is given back
 * while the VM cannot go yet: it stays until it has no views.
 */
void kvm_gmem_retire_view(struct gmem_file *view)
{
	struct inode *inode = file_inode(view->file);
	struct gmem_inode *gi = GMEM_I(inode);

	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);

	scoped_guard(mutex, &gi->views_lock) {
		kvm_gmem_invalidate_start(view, 0, ULONG_MAX);
		kvm_gmem_invalidate_end(view, 0, ULONG_MAX);
		kvm_gmem_drop_bindings(view);
	}

	if (view->state == GMEM_VIEW_ACTIVE &&
	    !kvm_arch_gmem_may_outlive(view->kvm))
		kvm_gmem_remove_pages(inode, 0,
				      i_size_read(inode) >> PAGE_SHIFT);

	scoped_guard(mutex, &gi->views_lock)
		kvm_gmem_disown_view(view);
}

/*
 * Leave the memory to the view that is pending, and to no other.  But if that was
 * closed after the move had looked at it, then there may be none, or those that
 * share the memory: they keep it, and @view is all that is revoked.
 */
static void kvm_gmem_revoke_view(struct gmem_file *view)
{
	struct inode *inode = file_inode(view->file);
	struct gmem_inode *gi = GMEM_I(inode);
	struct kvm *kvm = view->kvm;
	struct gmem_file *other;
	bool last;

	guard(mutex)(&gi->views_lock);
	kvm_gmem_assert_views_writable(inode);

	/* Those that are still to be revoked are first to be found. */
	spin_lock(&kvm->gmem.lock);
	list_move_tail(&view->kvm_node, &kvm->gmem.views);
	spin_unlock(&kvm->gmem.lock);

	last = gi->pending && gi->nr_active == 1;
	kvm_gmem_for_each_file(other, inode) {
		if (other == view || (last && other->kvm != gi->pending))
			WRITE_ONCE(other->state, GMEM_VIEW_REVOKED);
	}

	WRITE_ONCE(gi->nr_active, gi->nr_active - 1);
	kvm_gmem_activate_pending(inode);
}

/* Get the path of a view of @kvm whose state is among @states, a bitmap. */
static bool kvm_gmem_get_path(struct kvm *kvm, unsigned long states,
			      struct path *path)
{
	struct gmem_file *view;

	guard(spinlock)(&kvm->gmem.lock);

	list_for_each_entry(view, &kvm->gmem.views, kvm_node) {
		if (!(states & BIT(READ_ONCE(view->state))))
			continue;

		*path = view->file->f_path;
		path_get(path);
		return true;
	}

	return false;
}

/* Call @fn, under the inode's invalidate_lock, until no such view is left. */
static void kvm_gmem_for_views(struct kvm *kvm, unsigned long states,
			       void (*fn)(struct gmem_file *view))
{
	struct gmem_file *view;
	struct inode *inode;
	struct path path;

	while (kvm_gmem_get_path(kvm, states, &path)) {
		inode = d_inode(path.dentry);
		scoped_guard(gmem_invalidate, inode->i_mapping) {
			view = kvm_gmem_find_view(inode, kvm);
			if (view)
				fn(view);
		}
		path_put(&path);
		cond_resched();
	}
}

/* Make each of @kvm's views a dead one.  Runs while @kvm's MMU still works. */
void kvm_gmem_detach_vm(struct kvm *kvm)
{
	kvm_gmem_for_views(kvm, ~0UL, kvm_gmem_retire_view);
}

/* Take all memory from @kvm, and let those have it whose views are pending. */
void kvm_gmem_revoke_vm(struct kvm *kvm)
{
	lockdep_assert_held(&kvm->slots_lock);

	kvm_gmem_for_views(kvm, BIT(GMEM_VIEW_ACTIVE), kvm_gmem_revoke_view);
}
