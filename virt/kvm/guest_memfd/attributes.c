// SPDX-License-Identifier: GPL-2.0
/*
 * Memory attributes: which gfns of a VM are private.
 */

/**
 * DOC: Memory attributes
 *
 * Attributes belong to the VM, not to the memory.  They are kept as ranges in a
 * maple tree, so that setting them costs the same for a page and for a
 * terabyte, and adjacent ranges that are alike are one.  The tree is made when
 * attributes are first set: a VM without has none.  A move hands it to another
 * VM as it is.
 *
 * Whether a huge page would be of one kind is asked when it is about to be
 * mapped.  x86 has a flag for that in each memslot, which stays clear.
 *
 * Writers hold kvm->slots_lock.  Readers hold nothing but RCU, and may see the
 * attributes from before or after a change that is under way.  A fault finds
 * out by kvm->mmu_invalidate_seq, as a change invalidates its range.
 */

#include <linux/kvm_host.h>
#include <linux/maple_tree.h>

#include "gmem.h"
#include "../kvm_mm.h"

u64 kvm_supported_mem_attributes(struct kvm *kvm)
{
	if (!kvm || kvm_arch_has_private_mem(kvm))
		return KVM_MEMORY_ATTRIBUTE_PRIVATE;

	return 0;
}

unsigned long kvm_get_memory_attributes(struct kvm *kvm, gfn_t gfn)
{
	struct maple_tree *tree;

	guard(rcu)();

	tree = rcu_dereference(kvm->mem_attributes);
	return tree ? xa_to_value(mtree_load(tree, gfn)) : 0;
}
EXPORT_SYMBOL_GPL(kvm_get_memory_attributes);

/* Whether each gfn in [@start, @end) has exactly @attrs of those in @mask. */
bool kvm_range_has_memory_attributes(struct kvm *kvm, gfn_t start, gfn_t end,
				     unsigned long mask, unsigned long attrs)
{
	struct maple_tree *tree;
	gfn_t next = start;
	void *entry;

	mask &= kvm_supported_mem_attributes(kvm);
	if (attrs & ~mask)
		return false;

	guard(rcu)();

	tree = rcu_dereference(kvm->mem_attributes);
	if (!tree)
		return !attrs;

	MA_STATE(mas, tree, start, start);

	mas_for_each(&mas, entry, end - 1) {
		if ((xa_to_value(entry) & mask) != attrs)
			return false;

		/* What lies between two entries has no attributes. */
		if (attrs && mas.index > next)
			return false;

		next = mas.last + 1;
	}

	return !attrs || next >= end;
}

/* Whether all of the @nr gfns, naturally aligned, around @gfn are alike. */
bool kvm_mem_attributes_are_uniform(struct kvm *kvm, gfn_t gfn,
				    unsigned long nr)
{
	gfn_t start = round_down(gfn, nr);

	if (!rcu_access_pointer(kvm->mem_attributes))
		return true;

	return kvm_range_has_memory_attributes(kvm, start, start + nr, ~0,
					       kvm_get_memory_attributes(kvm, gfn));
}

static struct maple_tree *kvm_mem_attributes_get_tree(struct kvm *kvm)
{
	struct maple_tree *tree;

	tree = rcu_dereference_protected(kvm->mem_attributes,
					 lockdep_is_held(&kvm->slots_lock));
	if (tree)
		return tree;

	tree = kmalloc(sizeof(*tree), GFP_KERNEL_ACCOUNT);
	if (!tree)
		return NULL;

	/*
	 * Nobody looks for gaps.  But without them an inner node has the number
	 * of its children where it may have the 16th of them, and 6.12 confuses
	 * the two when RCU is to free what a store has replaced: it frees what
	 * is no node.  With gaps either has a place of its own.
	 */
	mt_init_flags(tree, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU |
			    MT_FLAGS_LOCK_EXTERN);
	mt_set_external_lock(tree, &kvm->slots_lock);
	rcu_assign_pointer(kvm->mem_attributes, tree);
	return tree;
}

/*
 * Readers are gone; so is whoever might want slots_lock.  If the tree came by a
 * move, then readers of the VM that had it were gone by then: they are vCPUs,
 * whose mutexes a move holds, or hold slots_lock.
 */
void kvm_mem_attributes_destroy(struct kvm *kvm)
{
	struct maple_tree *tree;

	mutex_lock(&kvm->slots_lock);
	tree = rcu_replace_pointer(kvm->mem_attributes, NULL,
				   lockdep_is_held(&kvm->slots_lock));
	if (tree) {
		/* Free here and now, not from an RCU callback. */
		mt_clear_in_rcu(tree);
		__mt_destroy(tree);
		kfree(tree);
	}
	mutex_unlock(&kvm->slots_lock);
}

/*
 * Point @mas at [@start, @end), and at what adjoins that with the same @entry,
 * so that the tree does not fragment.
 */
static void kvm_mem_attributes_set_range(struct ma_state *mas, gfn_t start,
					 gfn_t end, void *entry)
{
	gfn_t first = start;
	gfn_t last = end - 1;

	if (entry && start) {
		mas_set(mas, start - 1);
		if (mas_walk(mas) == entry)
			first = mas->index;
	}

	if (entry) {
		mas_set(mas, end);
		if (mas_walk(mas) == entry)
			last = mas->last;
	}

	mas_set_range(mas, first, last);
}

/*
 * Zap what is mapped in [@start, @end) and would not be with @attributes.
 * Return whether there are memslots: then kvm_mem_attributes_zap_end() is due.
 */
static bool kvm_mem_attributes_zap_start(struct kvm *kvm, gfn_t start,
					 gfn_t end, unsigned long attributes)
{
	struct kvm_memslot_iter iter;
	bool locked = false;
	int i;

	lockdep_assert_held(&kvm->slots_lock);

	for (i = 0; i < kvm_arch_nr_memslot_as_ids(kvm); i++) {
		kvm_for_each_memslot_in_gfn_range(&iter, __kvm_memslots(kvm, i),
						  start, end) {
			struct kvm_memory_slot *slot = iter.slot;
			struct kvm_gfn_range range = {
				.slot = slot,
				.start = max(start, slot->base_gfn),
				.end = min(end, slot->base_gfn + slot->npages),
				.arg.attributes = attributes,
				.may_block = true,
			};

			if (!locked) {
				locked = true;
				KVM_MMU_LOCK(kvm);
				kvm_mmu_invalidate_begin(kvm);
			}

			kvm_mmu_invalidate_range_add(kvm, range.start,
						     range.end);
			kvm_gmem_end_zap(kvm,
					 kvm_arch_pre_set_memory_attributes(kvm, &range));
		}
	}

	if (locked) {
		kvm_gmem_flush_others(kvm);
		KVM_MMU_UNLOCK(kvm);
	}

	return locked;
}

static void kvm_mem_attributes_zap_end(struct kvm *kvm)
{
	KVM_MMU_LOCK(kvm);
	kvm_mmu_invalidate_end(kvm);
	KVM_MMU_UNLOCK(kvm);
}

static int kvm_set_memory_attributes(struct kvm *kvm, gfn_t start, gfn_t end,
				     unsigned long attributes)
{
	void *entry = attributes ? xa_mk_value(attributes) : NULL;
	struct maple_tree *tree;
	bool zapped;
	int r;

	lockdep_assert_held(&kvm->slots_lock);

	if (kvm_range_has_memory_attributes(kvm, start, end, ~0, attributes))
		return 0;

	tree = kvm_mem_attributes_get_tree(kvm);
	if (!tree)
		return -ENOMEM;

	MA_STATE(mas, tree, start, end - 1);

	/* Nothing has changed if this fails, and nothing can fail after it. */
	kvm_mem_attributes_set_range(&mas, start, end, entry);
	r = mas_preallocate(&mas, entry, GFP_KERNEL_ACCOUNT);
	if (r)
		return r;

	zapped = kvm_mem_attributes_zap_start(kvm, start, end, attributes);
	mas_store_prealloc(&mas, entry);
	if (zapped)
		kvm_mem_attributes_zap_end(kvm);

	return 0;
}

/*
 * Give all of @src's attributes to @dst, which has none, and whose guest may have
 * mapped as shared what is going to be private.  Costs the same for one range
 * and for a million.
 */
void kvm_mem_attributes_move(struct kvm *dst, struct kvm *src)
{
	struct maple_tree *from, *to;
	bool zapped;

	from = rcu_dereference_protected(src->mem_attributes,
					 lockdep_is_held(&src->slots_lock));
	zapped = from && kvm_mem_attributes_zap_start(dst, 0, ULONG_MAX,
						      KVM_MEMORY_ATTRIBUTE_PRIVATE);

	to = rcu_replace_pointer(dst->mem_attributes, from,
				 lockdep_is_held(&dst->slots_lock));
	rcu_assign_pointer(src->mem_attributes, to);
	if (from)
		mt_set_external_lock(from, &dst->slots_lock);
	if (to)
		mt_set_external_lock(to, &src->slots_lock);

	if (zapped)
		kvm_mem_attributes_zap_end(dst);
}

/*
 * KVM_SET_MEMORY_ATTRIBUTES.  -EINVAL: flags, an attribute that this VM does
 * not have, or a range that is empty, unaligned or wraps.  -EINTR: killed while
 * others had the lock.  -ENOMEM.  An error leaves all attributes as they were.
 */
int kvm_vm_ioctl_set_mem_attributes(struct kvm *kvm,
				    struct kvm_memory_attributes *attrs)
{
	gfn_t start = attrs->address >> PAGE_SHIFT;
	gfn_t end = (attrs->address + attrs->size) >> PAGE_SHIFT;
	int r;

	if (attrs->flags)
		return -EINVAL;
	if (attrs->attributes & ~kvm_supported_mem_attributes(kvm))
		return -EINVAL;
	if (!attrs->size || attrs->address + attrs->size < attrs->address)
		return -EINVAL;
	if (!PAGE_ALIGNED(attrs->address) || !PAGE_ALIGNED(attrs->size))
		return -EINVAL;

	/* Gfns index the tree. */
	BUILD_BUG_ON(sizeof(gfn_t) != sizeof(unsigned long));

	if (mutex_lock_killable(&kvm->slots_lock))
		return -EINTR;
	r = kvm_set_memory_attributes(kvm, start, end, attrs->attributes);
	mutex_unlock(&kvm->slots_lock);

	return r;
}
