// SPDX-License-Identifier: GPL-2.0
/*
 * The hard link: a second VM's view of memory that is there.
 */

/**
 * DOC: Links
 *
 * KVM_LINK_GUEST_MEMFD makes a file for one VM on the inode of another VM's file.
 * The descriptor that is linked from is what entitles to it; which process asks,
 * and whether the VM that it was made for still lives, do not matter.
 *
 * A VM has one view of an inode at most, or one page could be at two of its gfns
 * by accident.  While a view is pending, no other link is made: the memory's
 * next owner is settled, and what a move has found out about its views stays
 * true.
 */

#include <linux/file.h>

#include "gmem.h"

#define KVM_GMEM_LINK_RIGHTS	(KVM_LINK_GUEST_MEMFD_READONLY |	\
				 KVM_LINK_GUEST_MEMFD_NO_FALLOCATE)
#define KVM_GMEM_LINK_FLAGS	(KVM_LINK_GUEST_MEMFD_SHARE |		\
				 KVM_GMEM_LINK_RIGHTS)

/* %KVM_CAP_GUEST_MEMFD_LINK.  @kvm is NULL if the question is about any VM. */
int kvm_gmem_supported_links(struct kvm *kvm)
{
	if (!kvm || kvm_arch_gmem_may_share(kvm))
		return KVM_GMEM_LINK_FLAGS | 1;

	return 1;
}

/* Whether @kvm may share with all that have the memory now. */
static bool kvm_gmem_may_share(struct inode *inode, struct kvm *kvm)
{
	struct gmem_file *view;

	kvm_gmem_assert_views_stable(inode);

	kvm_gmem_for_each_file(view, inode) {
		if (view->kvm && !kvm_arch_gmem_may_share(view->kvm))
			return false;
	}

	return kvm_arch_gmem_may_share(kvm);
}

static int kvm_gmem_check_link(struct kvm *kvm, struct gmem_file *from,
			       u64 flags)
{
	struct inode *inode = file_inode(from->file);

	kvm_gmem_assert_views_stable(inode);

	if (from->state != GMEM_VIEW_ACTIVE)
		return -EINVAL;

	if (kvm_gmem_find_view(inode, kvm))
		return -EINVAL;

	if (GMEM_I(inode)->flags & ~kvm_gmem_supported_flags(kvm))
		return -EINVAL;

	if (flags & KVM_LINK_GUEST_MEMFD_SHARE &&
	    !kvm_gmem_may_share(inode, kvm))
		return -EINVAL;

	/* What @from lacks the link must lack. */
	if (from->flags & ~flags)
		return -EPERM;

	if (GMEM_I(inode)->pending)
		return -EBUSY;

	return 0;
}

static enum gmem_view_state kvm_gmem_link_state(struct inode *inode, u64 flags)
{
	if (flags & KVM_LINK_GUEST_MEMFD_SHARE || !GMEM_I(inode)->nr_active)
		return GMEM_VIEW_ACTIVE;

	return GMEM_VIEW_PENDING;
}

/* Let @to, which is new, be @kvm's view of what @from is a view of. */
static int kvm_gmem_link_view(struct kvm *kvm, struct gmem_file *from,
			      struct gmem_file *to, u64 flags)
{
	struct inode *inode = file_inode(from->file);
	int r;

	guard(gmem_invalidate)(inode->i_mapping);

	r = kvm_gmem_check_link(kvm, from, flags);
	if (r)
		return r;

	to->flags = flags & KVM_GMEM_LINK_RIGHTS;
	to->state = kvm_gmem_link_state(inode, flags);
	kvm_gmem_add_view(to, kvm);
	return 0;
}

/*
 * Check first, so that what is refused costs nothing, and once more, since
 * allocating memory takes too long for the lock that faults need.
 */
static int kvm_gmem_link_fd(struct kvm *kvm, struct gmem_file *from, u64 flags)
{
	struct inode *inode = file_inode(from->file);
	struct file *file;
	int fd, r;

	lockdep_assert_held(&kvm->slots_lock);

	scoped_guard(gmem_invalidate_shared, inode->i_mapping)
		r = kvm_gmem_check_link(kvm, from, flags);
	if (r)
		return r;

	fd = get_unused_fd_flags(0);
	if (fd < 0)
		return fd;

	ihold(inode);
	file = kvm_gmem_alloc_file(inode);
	if (IS_ERR(file)) {
		r = PTR_ERR(file);
		goto err_fd;
	}

	r = kvm_gmem_link_view(kvm, from, file->private_data, flags);
	if (r)
		goto err_file;

	fd_install(fd, file);
	return fd;

err_file:
	fput(file);
err_fd:
	put_unused_fd(fd);
	return r;
}

/* KVM_LINK_GUEST_MEMFD: see struct kvm_link_guest_memfd. */
int kvm_gmem_link(struct kvm *kvm, struct kvm_link_guest_memfd __user *uargs)
{
	struct kvm_link_guest_memfd args;
	struct gmem_file *from;
	int r;

	if (copy_from_user(&args, uargs, sizeof(args)))
		return -EFAULT;

	if (args.flags & ~KVM_GMEM_LINK_FLAGS ||
	    memchr_inv(args.reserved, 0, sizeof(args.reserved)))
		return -EINVAL;

	if (args.flags & KVM_GMEM_LINK_RIGHTS &&
	    !(args.flags & KVM_LINK_GUEST_MEMFD_SHARE))
		return -EINVAL;

	if (args.flags & KVM_LINK_GUEST_MEMFD_READONLY)
		args.flags |= KVM_LINK_GUEST_MEMFD_NO_FALLOCATE;

	if (args.fd > INT_MAX)
		return -EINVAL;

	CLASS(fd, f)(args.fd);
	if (fd_empty(f))
		return -EINVAL;

	from = kvm_gmem_file_view(fd_file(f));
	if (!from)
		return -EINVAL;

	r = kvm_gmem_lock_vm(kvm);
	if (r)
		return r;

	r = kvm_gmem_link_fd(kvm, from, args.flags);
	mutex_unlock(&kvm->slots_lock);
	return r;
}
