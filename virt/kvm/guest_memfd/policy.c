// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA memory policies.
 */

/**
 * DOC: Memory policies
 *
 * mbind() on a mapping says on which nodes the memory behind it is to be.  As
 * with tmpfs, the policy is the memory's and not the mapping's: it is kept in the
 * inode, for that part of the file, and whoever needs a page first goes by it, be
 * it the guest, the host, or fallocate().  Where there is none the page comes
 * from where the task may allocate.  Pages that are there already stay where they
 * are.  A huge folio comes from one node, so that a block has one only if no part
 * of it has a policy to itself.
 *
 * mm keeps to itself what that takes, so it is there only in a kernel that was
 * built for it (CONFIG_KVM_GMEM_NUMA), and in modules for other kernels is not.
 */

#include <linux/mempolicy.h>

#include "gmem.h"

#ifdef CONFIG_KVM_GMEM_NUMA
void kvm_gmem_init_policy(struct inode *inode)
{
	mpol_shared_policy_init(&GMEM_I(inode)->policy, NULL);
}

void kvm_gmem_free_policy(struct inode *inode)
{
	mpol_free_shared_policy(&GMEM_I(inode)->policy);
}

/*
 * -EPERM: not through this view.  Otherwise as mbind(): -ENOMEM.  @policy is NULL
 * to go back to none.
 */
int kvm_gmem_set_policy(struct vm_area_struct *vma, struct mempolicy *policy)
{
	struct gmem_file *view = vma->vm_file->private_data;
	struct inode *inode = file_inode(view->file);

	guard(gmem_invalidate_shared)(inode->i_mapping);

	if (!kvm_gmem_may_change(view))
		return -EPERM;

	return mpol_set_shared_policy(&GMEM_I(inode)->policy, vma, policy);
}

/* Policies that go round the nodes begin at a different one for each file. */
struct mempolicy *kvm_gmem_get_policy(struct vm_area_struct *vma,
				      unsigned long addr, pgoff_t *ilx)
{
	struct inode *inode = file_inode(vma->vm_file);

	*ilx = inode->i_ino;
	return mpol_shared_policy_lookup(&GMEM_I(inode)->policy,
					 linear_page_index(vma, addr));
}

/* Whether one call set the policy of the pages [@start, @end), or none did. */
static bool kvm_gmem_has_one_policy(struct inode *inode, pgoff_t start,
				    pgoff_t end)
{
	struct shared_policy *policies = &GMEM_I(inode)->policy;
	struct rb_node *node;
	struct sp_node *range;

	guard(read_lock)(&policies->lock);

	node = policies->root.rb_node;
	while (node) {
		range = rb_entry(node, struct sp_node, nd);
		if (end <= range->start)
			node = node->rb_left;
		else if (start >= range->end)
			node = node->rb_right;
		else
			return start >= range->start && end <= range->end;
	}

	return true;
}

/* A folio of @order, in no file yet, for the page at @index; or NULL. */
struct folio *kvm_gmem_alloc_folio(struct inode *inode, pgoff_t index,
				   unsigned int order, gfp_t gfp)
{
	pgoff_t first = round_down(index, 1UL << order);
	struct mempolicy *policy;
	struct folio *folio;

	if (order && !kvm_gmem_has_one_policy(inode, first, first + (1UL << order)))
		return NULL;

	policy = mpol_shared_policy_lookup(&GMEM_I(inode)->policy, index);
	if (!policy)
		return filemap_alloc_folio(gfp, order);

	folio = folio_alloc_mpol(gfp, order, policy,
				 inode->i_ino + (index >> order),
				 numa_node_id());
	mpol_cond_put(policy);
	return folio;
}
#else
/*
 * A policy of the mapping alone would have no effect on what the guest touches
 * first.
 */
int kvm_gmem_set_policy(struct vm_area_struct *vma, struct mempolicy *policy)
{
	return -EOPNOTSUPP;
}

struct mempolicy *kvm_gmem_get_policy(struct vm_area_struct *vma,
				      unsigned long addr, pgoff_t *ilx)
{
	return NULL;
}
#endif /* CONFIG_KVM_GMEM_NUMA */
