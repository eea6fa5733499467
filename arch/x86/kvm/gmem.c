// SPDX-License-Identifier: GPL-2.0
/*
 * guest_memfd's arch hooks on x86.
 */

/**
 * DOC: x86 hooks
 *
 * SNP ties a page to a guest in the RMP: prepare assigns it, reclaim gives it
 * back to the hypervisor.  The RMP names the guest by its ASID, so that none of
 * its memory may be left when the VM, and with it the ASID, goes.  The other VM
 * types leave no trace in hardware.
 */

#include <linux/kvm_host.h>

/* Return: 0; -ENOENT or -EINVAL if the RMP cannot be read or changed. */
int kvm_arch_gmem_prepare(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn,
			  int max_order)
{
	return kvm_x86_call(gmem_prepare)(kvm, pfn, gfn, max_order);
}

void kvm_arch_gmem_reclaim(kvm_pfn_t start, kvm_pfn_t end)
{
	kvm_x86_call(gmem_invalidate)(start, end);
}

bool kvm_arch_gmem_may_outlive(struct kvm *kvm)
{
	return kvm->arch.vm_type != KVM_X86_SNP_VM;
}

bool kvm_arch_gmem_may_share(struct kvm *kvm)
{
	return kvm->arch.vm_type == KVM_X86_DEFAULT_VM ||
	       kvm->arch.vm_type == KVM_X86_SW_PROTECTED_VM;
}

/*
 * SEV and SEV-ES have keys and pinned memory to move as well, which svm/sev.c
 * does.  An SNP guest's context would have to follow its memory.
 */
bool kvm_arch_gmem_may_move(struct kvm *kvm)
{
	return kvm->arch.vm_type == KVM_X86_SW_PROTECTED_VM;
}
