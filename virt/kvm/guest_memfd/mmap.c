// SPDX-License-Identifier: GPL-2.0
/*
 * The host's mappings of memory that it shares with the guest.
 */

/**
 * DOC: Host mappings
 *
 * A file that was created with %GUEST_MEMFD_FLAG_MMAP can be mapped by the
 * host, and is then all that there is behind its memslots, see
 * KVM_MEMSLOT_GMEM_ONLY.  Only what is shared can be touched, which is all of
 * the file with %GUEST_MEMFD_FLAG_INIT_SHARED, and nothing without.
 *
 * A mapping has the rights of the view through which it was made, and holds a
 * reference to the file.  It maps a page cache like others: get_user_pages()
 * works, and what takes a page out of the file unmaps it.  A page is handed out
 * with its folio locked, and leaves the file with its folio locked, so it is
 * not mapped once it has left.
 *
 * Folios of this filesystem must not become huge ones behind its back: SPTEs
 * would go on mapping the pages that were there before.  mm makes huge pages of
 * files that nobody can write to.  So the inode says that somebody can.
 */

#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "gmem.h"

/*
 * As kvm_gmem_grab_folio(), at the expense of whose mapping it is.  KVM touches
 * what its guest waits for in a thread that belongs to no cgroup (async_pf.c).
 */
static struct folio *kvm_gmem_grab_mapped(struct vm_area_struct *vma,
					  struct inode *inode, pgoff_t index,
					  bool huge)
{
	struct mem_cgroup *memcg = get_mem_cgroup_from_mm(vma->vm_mm);
	struct mem_cgroup *old = set_active_memcg(memcg);
	struct folio *folio = kvm_gmem_grab_folio(inode, index, huge);

	set_active_memcg(old);
	mem_cgroup_put(memcg);
	return folio;
}

static vm_fault_t kvm_gmem_fault(struct vm_fault *vmf)
{
	struct gmem_file *view = vmf->vma->vm_file->private_data;
	struct inode *inode = file_inode(view->file);
	pgoff_t size = i_size_read(inode) >> PAGE_SHIFT;
	struct folio *folio;
	bool huge;

	if (!(GMEM_I(inode)->flags & GUEST_MEMFD_FLAG_INIT_SHARED) ||
	    vmf->pgoff >= size)
		return VM_FAULT_SIGBUS;

	guard(gmem_invalidate_shared)(inode->i_mapping);

	if (!kvm_gmem_may_map(view))
		return VM_FAULT_SIGBUS;

	huge = kvm_gmem_block_is_inside(inode, vmf->pgoff, 0, size);
	folio = kvm_gmem_grab_mapped(vmf->vma, inode, vmf->pgoff, huge);
	if (IS_ERR(folio))
		return vmf_error(PTR_ERR(folio));

	if (PageHWPoison(folio_file_page(folio, vmf->pgoff))) {
		folio_unlock(folio);
		folio_put(folio);
		return VM_FAULT_HWPOISON;
	}

	kvm_gmem_fill_folio(folio);
	vmf->page = folio_file_page(folio, vmf->pgoff);
	return VM_FAULT_LOCKED;
}

static const struct vm_operations_struct kvm_gmem_vm_ops = {
	.fault		= kvm_gmem_fault,
#ifdef CONFIG_NUMA
	.set_policy	= kvm_gmem_set_policy,
	.get_policy	= kvm_gmem_get_policy,
#endif
};

/*
 * -ENODEV: this memory cannot be mapped.  -EINVAL: not as MAP_PRIVATE.
 * -EACCES: not for writing, through a read-only view.
 */
int kvm_gmem_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct gmem_file *view = file->private_data;

	if (!(GMEM_I(file_inode(file))->flags & GUEST_MEMFD_FLAG_MMAP))
		return -ENODEV;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;

	if (view->flags & KVM_LINK_GUEST_MEMFD_READONLY) {
		if (vma->vm_flags & VM_WRITE)
			return -EACCES;
		vm_flags_clear(vma, VM_MAYWRITE);
	}

	vma->vm_ops = &kvm_gmem_vm_ops;
	return 0;
}
