// SPDX-License-Identifier: GPL-2.0
/*
 * The VMSA page of an SNP guest's vCPU, which the guest takes from its memory.
 */

/**
 * DOC: VMSA pages
 *
 * An SNP guest that starts another vCPU says which of its pages has that vCPU's
 * registers.  KVM writes the page's address into the VMCB, and has no reference to
 * the page: the hardware would go on using it when userspace has punched it out
 * of its guest_memfd.  So each zap, and the deletion of each memslot, makes all
 * vCPUs of the VM leave the guest, and look whether a memslot has their VMSA page
 * before they enter again.
 *
 * If none has, the page of the same gfn is used instead.  That can be the same
 * one, if a memslot was made anew.  If it is another, then the registers are
 * gone, and the hardware refuses to run the vCPU.  While there is no page, %KVM_RUN
 * fails as for any private memory that is missing.
 *
 * See AMD's "SEV-ES Guest-Hypervisor Communication Block Standardization", SNP
 * AP Creation.
 */

#include <linux/kvm_host.h>

#include "svm.h"

/* Whether a memslot has the page at @vmsa.  If so, remember which gfn it is. */
static bool sev_vmsa_is_bound(struct kvm_vcpu *vcpu, hpa_t vmsa)
{
	struct vcpu_sev_es_state *es = &to_svm(vcpu)->sev_es;
	struct kvm *kvm = vcpu->kvm;
	gfn_t gfn;

	guard(read_lock)(&kvm->mmu_lock);

	if (!kvm_gmem_find_gfn(kvm, vmsa >> PAGE_SHIFT, &gfn))
		return false;

	es->gmem_vmsa_pa = vmsa;
	es->gmem_vmsa_gfn = gfn;
	es->gmem_vmsa_lost = false;

	/* It may be about to go: ask again. */
	if (mmu_invalidate_retry_gfn(kvm, kvm->mmu_invalidate_seq, gfn))
		kvm_make_request(KVM_REQ_GMEM_CHECK_VMSA, vcpu);
	return true;
}

static int sev_reload_vmsa(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	gfn_t gfn = svm->sev_es.gmem_vmsa_gfn;
	struct kvm *kvm = vcpu->kvm;
	struct kvm_memory_slot *slot;
	unsigned long mmu_seq;
	int r = -EFAULT;
	kvm_pfn_t pfn;

	mmu_seq = kvm->mmu_invalidate_seq;
	/* Pairs with the barrier of whoever changes it. */
	smp_rmb();

	slot = gfn_to_memslot(kvm, gfn);
	if (kvm_slot_can_be_private(slot))
		r = kvm_gmem_get_pfn(kvm, slot, gfn, &pfn, NULL);
	if (r) {
		kvm_make_request(KVM_REQ_GMEM_CHECK_VMSA, vcpu);
		kvm_prepare_memory_fault_exit(vcpu, gfn_to_gpa(gfn), PAGE_SIZE,
					      true, false, true);
		return r == -EHWPOISON ? r : -EFAULT;
	}

	scoped_guard(read_lock, &kvm->mmu_lock) {
		if (mmu_invalidate_retry_gfn(kvm, mmu_seq, gfn)) {
			kvm_make_request(KVM_REQ_GMEM_CHECK_VMSA, vcpu);
		} else {
			svm->vmcb->control.vmsa_pa = pfn_to_hpa(pfn);
			svm->sev_es.gmem_vmsa_pa = pfn_to_hpa(pfn);
			svm->sev_es.gmem_vmsa_lost = false;
		}
	}

	kvm_release_pfn_clean(pfn);
	return 0;
}

/*
 * Called before @vcpu enters the guest, after a zap that may have taken its VMSA
 * page.  0: go on, -EFAULT or -EHWPOISON: there is no such page now.
 */
int sev_gmem_check_vmsa(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	hpa_t vmsa = svm->vmcb->control.vmsa_pa;

	/* The VMSA that KVM has made is not the guest's memory. */
	if (!svm->sev_es.snp_has_guest_vmsa)
		return 0;

	if (VALID_PAGE(vmsa)) {
		if (sev_vmsa_is_bound(vcpu, vmsa))
			return 0;

		svm->vmcb->control.vmsa_pa = INVALID_PAGE;
		vmcb_mark_all_dirty(svm->vmcb);
		svm->sev_es.gmem_vmsa_lost = svm->sev_es.gmem_vmsa_pa == vmsa;
	}

	return svm->sev_es.gmem_vmsa_lost ? sev_reload_vmsa(vcpu) : 0;
}
