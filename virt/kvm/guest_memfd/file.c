// SPDX-License-Identifier: GPL-2.0
/*
 * The view: a VM's file on a guest_memfd inode, from creation to the death of
 * the VM or the last close, whichever comes first.
 */

/**
 * DOC: Views
 *
 * A view is *active* from its creation, and *dead* once its VM is gone.  A dead
 * view has no VM and no bindings, and never gets either again.  Its descriptor
 * still names the memory: fstat() and fallocate() work as before.
 *
 * The last close finds no bindings, as each one pins the file.
 *
 * A VM's death and a file's last close may meet.  Both take the inode's
 * invalidate_lock before they touch the view, so that one finds it gone from
 * the VM's list or the other finds it dead.  The dying VM reaches the inode by
 * the file's path: a view stays on its VM's list until the file's release(),
 * and a file keeps its path until after that.
 */

#include <linux/file.h>
#include <linux/mount.h>
#include <linux/path.h>
#include <uapi/linux/falloc.h>

#include "gmem.h"

static void kvm_gmem_add_view(struct gmem_file *view, struct kvm *kvm)
{
	struct inode *inode = file_inode(view->file);

	kvm_gmem_assert_views_writable(inode);

	view->kvm = kvm;
	list_add_tail(&view->inode_node, &inode->i_mapping->i_private_list);

	spin_lock(&kvm->gmem.lock);
	list_add_tail(&view->kvm_node, &kvm->gmem.views);
	spin_unlock(&kvm->gmem.lock);
}

/* From here on @view is dead.  Its VM may be gone as soon as the lock is. */
static void kvm_gmem_disown_view(struct gmem_file *view)
{
	struct kvm *kvm = view->kvm;

	kvm_gmem_assert_views_writable(file_inode(view->file));

	WRITE_ONCE(view->kvm, NULL);

	spin_lock(&kvm->gmem.lock);
	list_del(&view->kvm_node);
	spin_unlock(&kvm->gmem.lock);
}

static void kvm_gmem_drop_bindings(struct gmem_file *view)
{
	struct interval_tree_node *node;

	kvm_gmem_assert_views_writable(file_inode(view->file));

	while ((node = interval_tree_iter_first(&view->bindings, 0,
						ULONG_MAX))) {
		interval_tree_remove(node, &view->bindings);
		RB_CLEAR_NODE(&node->rb);
	}
}

static void kvm_gmem_detach_inode(struct kvm *kvm, struct inode *inode)
{
	struct address_space *mapping = inode->i_mapping;
	struct gmem_file *view;

	guard(gmem_invalidate)(mapping);

	scoped_guard(mutex, &GMEM_I(inode)->views_lock) {
		kvm_gmem_for_each_file(view, inode) {
			if (view->kvm != kvm)
				continue;

			kvm_gmem_invalidate_start(view, 0, ULONG_MAX);
			kvm_gmem_invalidate_end(view, 0, ULONG_MAX);
			kvm_gmem_drop_bindings(view);
			kvm_gmem_disown_view(view);
		}
	}

	if (!kvm_arch_gmem_may_outlive(kvm))
		truncate_inode_pages(mapping, 0);
}

static bool kvm_gmem_get_first_path(struct kvm *kvm, struct path *path)
{
	struct gmem_file *view;

	guard(spinlock)(&kvm->gmem.lock);

	view = list_first_entry_or_null(&kvm->gmem.views, struct gmem_file,
					kvm_node);
	if (!view)
		return false;

	*path = view->file->f_path;
	path_get(path);
	return true;
}

/* Make each of @kvm's views a dead one.  Runs while @kvm's MMU still works. */
void kvm_gmem_detach_vm(struct kvm *kvm)
{
	struct path path;

	while (kvm_gmem_get_first_path(kvm, &path)) {
		kvm_gmem_detach_inode(kvm, d_inode(path.dentry));
		path_put(&path);
		cond_resched();
	}
}

static int kvm_gmem_release(struct inode *inode, struct file *file)
{
	struct gmem_file *view = file->private_data;

	scoped_guard(gmem_invalidate, inode->i_mapping) {
		guard(mutex)(&GMEM_I(inode)->views_lock);

		if (view->kvm)
			kvm_gmem_disown_view(view);
		list_del(&view->inode_node);
	}

	kfree(view);
	kvm_gmem_mnt_put();
	return 0;
}

/*
 * Allocate pages, or give them back with %FALLOC_FL_PUNCH_HOLE.  The size never
 * changes, hence %FALLOC_FL_KEEP_SIZE is wanted with both.
 *
 * -EOPNOTSUPP: any other mode.  -EINVAL: @offset or @len is no multiple of the
 * page size, or memory is asked for past the end.  -EINTR: interrupted; what was
 * allocated stays.
 */
static long kvm_gmem_fallocate(struct file *file, int mode, loff_t offset,
			       loff_t len)
{
	struct inode *inode = file_inode(file);
	pgoff_t start, end;

	if (mode != FALLOC_FL_KEEP_SIZE &&
	    mode != (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
		return -EOPNOTSUPP;

	if (!PAGE_ALIGNED(offset) || !PAGE_ALIGNED(len))
		return -EINVAL;

	start = offset >> PAGE_SHIFT;
	end = start + (len >> PAGE_SHIFT);

	if (mode & FALLOC_FL_PUNCH_HOLE) {
		kvm_gmem_punch_hole(inode, start, end);
		return 0;
	}

	if (offset + len > i_size_read(inode))
		return -EINVAL;

	return kvm_gmem_allocate(inode, start, end);
}

static const struct file_operations kvm_gmem_fops = {
	.fallocate	= kvm_gmem_fallocate,
	.release	= kvm_gmem_release,
};

/* @file's view, or NULL if it is not a guest_memfd. */
struct gmem_file *kvm_gmem_file_view(struct file *file)
{
	return file->f_op == &kvm_gmem_fops ? file->private_data : NULL;
}

/* A file on a new inode.  The caller has a reference to the mount. */
static struct file *kvm_gmem_alloc_file(struct vfsmount *mnt, loff_t size)
{
	struct inode *inode;
	struct file *file;

	inode = kvm_gmem_alloc_inode(mnt->mnt_sb, size);
	if (IS_ERR(inode))
		return ERR_CAST(inode);

	file = alloc_file_pseudo(inode, mnt, "[kvm-gmem]", O_RDWR | O_LARGEFILE,
				 &kvm_gmem_fops);
	if (IS_ERR(file))
		iput(inode);

	return file;
}

/* A new file of @size bytes, or an errno and nothing at all. */
static struct file *kvm_gmem_create_file(struct kvm *kvm, loff_t size)
{
	struct gmem_file *view;
	struct vfsmount *mnt;
	struct file *file;

	view = kzalloc(sizeof(*view), GFP_KERNEL_ACCOUNT);
	if (!view)
		return ERR_PTR(-ENOMEM);

	mnt = kvm_gmem_mnt_get();
	if (IS_ERR(mnt)) {
		file = ERR_CAST(mnt);
		goto err_view;
	}

	file = kvm_gmem_alloc_file(mnt, size);
	if (IS_ERR(file))
		goto err_mnt;

	view->file = file;
	view->bindings = RB_ROOT_CACHED;
	file->private_data = view;

	filemap_invalidate_lock(file->f_mapping);
	mutex_lock(&GMEM_I(file_inode(file))->views_lock);
	kvm_gmem_add_view(view, kvm);
	mutex_unlock(&GMEM_I(file_inode(file))->views_lock);
	filemap_invalidate_unlock(file->f_mapping);
	return file;

err_mnt:
	kvm_gmem_mnt_put();
err_view:
	kfree(view);
	return file;
}

int kvm_gmem_create_fd(struct kvm *kvm, loff_t size)
{
	struct file *file;
	int fd;

	fd = get_unused_fd_flags(0);
	if (fd < 0)
		return fd;

	file = kvm_gmem_create_file(kvm, size);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}

	fd_install(fd, file);
	return fd;
}
