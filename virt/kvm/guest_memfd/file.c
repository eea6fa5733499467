// SPDX-License-Identifier: GPL-2.0
/*
 * The file: making and closing it, and what its descriptor can do.
 */

/**
 * DOC: Files
 *
 * A file is born with its view, and is not to be seen before the view has its
 * VM.  The last close finds no bindings, as each one pins the file.
 *
 * Each file pins the filesystem's mount, until its inode is gone: see inode.c.
 */

#include <linux/file.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <uapi/linux/falloc.h>

#include "gmem.h"

static int kvm_gmem_release(struct inode *inode, struct file *file)
{
	struct gmem_file *view = file->private_data;

	scoped_guard(gmem_invalidate, inode->i_mapping) {
		if (view->kvm)
			kvm_gmem_retire_view(view);

		guard(mutex)(&GMEM_I(inode)->views_lock);
		list_del(&view->inode_node);

		/*
		 * Nobody can link to it any more.  What watches an inode without
		 * links (inotify) goes with the dentry, which is next.
		 */
		if (list_empty(&inode->i_mapping->i_private_list))
			clear_nlink(inode);
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
 * page size, or memory is asked for past the end.  -EPERM: not through this
 * view, or not now.  -EINTR: interrupted; what was allocated stays.
 */
static long kvm_gmem_fallocate(struct file *file, int mode, loff_t offset,
			       loff_t len)
{
	struct gmem_file *view = file->private_data;
	pgoff_t start, end;

	if (mode != FALLOC_FL_KEEP_SIZE &&
	    mode != (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
		return -EOPNOTSUPP;

	if (!PAGE_ALIGNED(offset) || !PAGE_ALIGNED(len))
		return -EINVAL;

	start = offset >> PAGE_SHIFT;
	end = start + (len >> PAGE_SHIFT);

	if (mode & FALLOC_FL_PUNCH_HOLE)
		return kvm_gmem_punch_hole(view, start, end);

	if (offset + len > i_size_read(file_inode(file)))
		return -EINVAL;

	return kvm_gmem_allocate(view, start, end);
}

static const struct file_operations kvm_gmem_fops = {
	.fallocate	= kvm_gmem_fallocate,
	.mmap		= kvm_gmem_mmap,
	.get_unmapped_area = thp_get_unmapped_area,
	.release	= kvm_gmem_release,
};

/* @file's view, or NULL if it is not a guest_memfd. */
struct gmem_file *kvm_gmem_file_view(struct file *file)
{
	return file->f_op == &kvm_gmem_fops ? file->private_data : NULL;
}

/*
 * A file on @inode with an active view of all rights, that has no VM yet.  Takes
 * the caller's reference to @inode, also if there is an error.
 */
struct file *kvm_gmem_alloc_file(struct inode *inode)
{
	struct gmem_file *view;
	struct vfsmount *mnt;
	struct file *file;

	view = kzalloc(sizeof(*view), GFP_KERNEL_ACCOUNT);
	if (!view) {
		file = ERR_PTR(-ENOMEM);
		goto err_inode;
	}

	mnt = kvm_gmem_mnt_get();
	if (IS_ERR(mnt)) {
		file = ERR_CAST(mnt);
		goto err_view;
	}

	file = alloc_file_pseudo(inode, mnt, "[kvm-gmem]", O_RDWR | O_LARGEFILE,
				 &kvm_gmem_fops);
	if (IS_ERR(file))
		goto err_mnt;

	view->file = file;
	view->bindings = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&view->inode_node);
	file->private_data = view;
	return file;

err_mnt:
	kvm_gmem_mnt_put();
err_view:
	kfree(view);
err_inode:
	iput(inode);
	return file;
}

/* A file on a new inode of @size bytes. */
static struct file *kvm_gmem_create_file(loff_t size, u64 flags)
{
	struct vfsmount *mnt;
	struct inode *inode;
	struct file *file;

	mnt = kvm_gmem_mnt_get();
	if (IS_ERR(mnt))
		return ERR_CAST(mnt);

	inode = kvm_gmem_alloc_inode(mnt->mnt_sb, size, flags);
	file = IS_ERR(inode) ? ERR_CAST(inode) : kvm_gmem_alloc_file(inode);

	kvm_gmem_mnt_put();
	return file;
}

int kvm_gmem_create_fd(struct kvm *kvm, loff_t size, u64 flags)
{
	struct file *file;
	int fd;

	lockdep_assert_held(&kvm->slots_lock);

	fd = get_unused_fd_flags(0);
	if (fd < 0)
		return fd;

	file = kvm_gmem_create_file(size, flags);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}

	scoped_guard(gmem_invalidate, file->f_mapping)
		kvm_gmem_add_view(file->private_data, kvm);

	fd_install(fd, file);
	return fd;
}
