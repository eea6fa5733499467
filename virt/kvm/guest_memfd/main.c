// SPDX-License-Identifier: GPL-2.0
/*
 * guest_memfd: what KVM's core calls.
 */

/**
 * DOC: Overview
 *
 * A guest_memfd is memory that exists for a guest first.  A VM's
 * %KVM_CREATE_GUEST_MEMFD ioctl makes it, memslots map it into the guest, and
 * the host has no way to read or write it, unless it was made to be mapped.
 *
 * The *inode* (&struct gmem_inode) is the memory: its page cache holds the
 * folios.  Size never changes.  Memory goes back to the page allocator when a
 * hole is punched or when the last reference to the inode goes, and never
 * without the architecture having reclaimed it first.
 *
 * The *file* (&struct gmem_file) is one VM's view of that memory: which VM, and
 * which of its memslots map what.  Views hang on their inode's
 * address_space.i_private_list and on their VM's list.
 *
 * A *binding* is a memslot's hold on a view.  It pins the file, so that
 * slot->gmem.file is there for as long as the slot is, a fault needs no
 * reference, and closing the file descriptor is no command to take memory from
 * a running guest.
 *
 * The file does not pin the VM.  When the last reference to a VM goes, it
 * detaches its views while its MMU still works: what they map is zapped, their
 * bindings are dropped, and they are dead from then on.  The descriptor of a
 * dead view still names the memory.  If the hardware ties memory to the VM that
 * used it, the memory is reclaimed at that moment.
 *
 * A *link* is a second VM's view of the same inode: beside the first, with
 * rights of its own, or in order to follow it.  A *move* makes the second VM the
 * first one's successor, with all its memory and attributes, and no page copied.
 */

#include <linux/debugfs.h>
#include <linux/kvm_host.h>

#include "gmem.h"

static struct dentry *kvm_gmem_debugfs;

/*
 * Take @kvm's slots_lock in order to add a view.  A move that makes @kvm its
 * source knows all of its views, and revokes them, while it has that lock.
 *
 * -EINTR: killed while waiting.  -EIO: @kvm has died meanwhile.
 */
int kvm_gmem_lock_vm(struct kvm *kvm)
{
	if (mutex_lock_killable(&kvm->slots_lock))
		return -EINTR;

	if (!kvm->vm_dead)
		return 0;

	mutex_unlock(&kvm->slots_lock);
	return -EIO;
}

/**
 * kvm_gmem_supported_flags - the flags that a VM's guest_memfds may have
 * @kvm: the VM; NULL: any
 *
 * The host never maps private memory, and a VM that has private memory decides by
 * its attributes what is.
 */
u64 kvm_gmem_supported_flags(struct kvm *kvm)
{
	if (kvm && kvm_arch_has_private_mem(kvm))
		return GUEST_MEMFD_FLAG_MMAP;

	return GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
}

/*
 * KVM_CREATE_GUEST_MEMFD.  args->reserved is not looked at: binaries made for
 * any kernel that has this ioctl may leave what they like in it.
 */
int kvm_gmem_create(struct kvm *kvm, struct kvm_create_guest_memfd *args)
{
	loff_t size = args->size;
	int r;

	if (args->flags & ~kvm_gmem_supported_flags(kvm))
		return -EINVAL;

	if (size <= 0 || !PAGE_ALIGNED(size))
		return -EINVAL;

	r = kvm_gmem_lock_vm(kvm);
	if (r)
		return r;

	r = kvm_gmem_create_fd(kvm, size, args->flags);
	mutex_unlock(&kvm->slots_lock);
	return r;
}

void kvm_gmem_init_vm(struct kvm *kvm)
{
	INIT_LIST_HEAD(&kvm->gmem.views);
	spin_lock_init(&kvm->gmem.lock);
	INIT_DELAYED_WORK(&kvm->gmem.zap_work, kvm_gmem_zap_moved);
	kvm_gmem_test_init_vm(kvm);
}

/*
 * @kvm has no user left, and no vCPU that could run, but its MMU and its arch
 * state are whole.
 */
void kvm_gmem_destroy_vm(struct kvm *kvm)
{
	cancel_delayed_work_sync(&kvm->gmem.zap_work);
	kvm_gmem_detach_vm(kvm);
	kvm_gmem_test_destroy_vm(kvm);
	kvm_mem_attributes_destroy(kvm);
}

/* @module is the vendor module, which in turn pins kvm.ko. */
int kvm_gmem_init(struct module *module)
{
	int r;

	r = kvm_gmem_inode_init(module);
	if (r)
		return r;

	kvm_gmem_debugfs = debugfs_create_dir("kvm_gmem", NULL);
	kvm_gmem_reclaim_init(kvm_gmem_debugfs);

	r = kvm_gmem_test_init(kvm_gmem_debugfs);
	if (!r)
		return 0;

	debugfs_remove(kvm_gmem_debugfs);
	kvm_gmem_inode_exit();
	return r;
}

void kvm_gmem_exit(void)
{
	kvm_gmem_test_exit();
	debugfs_remove(kvm_gmem_debugfs);
	kvm_gmem_inode_exit();
}
