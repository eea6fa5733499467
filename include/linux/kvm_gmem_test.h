/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The ownership model: hardware that knows whose a page is, in software.  See
 * virt/kvm/guest_memfd/test.c.
 */
#ifndef __LINUX_KVM_GMEM_TEST_H
#define __LINUX_KVM_GMEM_TEST_H

#include <linux/kvm_types.h>

struct gmem_test_owner;
struct kvm;

/**
 * struct kvm_gmem_test_vm - what the model keeps of a VM
 * @owner: what the VM's pages are the property of; NULL while it never had any
 * @tied: whether memory must not outlive the VM, nor be shared
 */
struct kvm_gmem_test_vm {
	struct gmem_test_owner *owner;
	bool tied;
};

#ifdef CONFIG_KVM_GMEM_TEST
/* What the architecture calls where it would ask the hardware. */
int kvm_gmem_test_prepare(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn,
			  int order);
bool kvm_gmem_test_map(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn, gfn_t npages);
kvm_pfn_t kvm_gmem_test_reclaim(kvm_pfn_t start, kvm_pfn_t end);
int kvm_gmem_test_move(struct kvm *dst, struct kvm *src);
bool kvm_gmem_test_is_tied(struct kvm *kvm);
bool kvm_gmem_test_must_clear(void);
#else
static inline int kvm_gmem_test_prepare(struct kvm *kvm, gfn_t gfn,
					kvm_pfn_t pfn, int order)
{
	return 0;
}

static inline bool kvm_gmem_test_map(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn,
				     gfn_t npages)
{
	return true;
}

static inline kvm_pfn_t kvm_gmem_test_reclaim(kvm_pfn_t start, kvm_pfn_t end)
{
	return end;
}

static inline int kvm_gmem_test_move(struct kvm *dst, struct kvm *src)
{
	return 0;
}

static inline bool kvm_gmem_test_is_tied(struct kvm *kvm)
{
	return false;
}

static inline bool kvm_gmem_test_must_clear(void)
{
	return false;
}
#endif /* CONFIG_KVM_GMEM_TEST */

#endif /* __LINUX_KVM_GMEM_TEST_H */
