// SPDX-License-Identifier: GPL-2.0
/*
 * guest_memfd's arch hooks on x86.
 */

/**
 * DOC: x86 hooks
 *
 * On a host with SNP the RMP has the last word on each page.  Prepare assigns a
 * page of an SNP guest to it, reclaim gives it back to the hypervisor, and then
 * looks whether the RMP agrees.  The RMP names the guest by its ASID, so that none
 * of its memory may be left when the VM, and with it the ASID, goes.
 *
 * The other VM types leave no trace in hardware.  On hosts without SNP the
 * ownership model can stand in for it: see virt/kvm/guest_memfd/test.c.
 *
 * What TDX had encrypted must be overwritten, with the host's key and by whole
 * cache lines, before the host may read it: MOVDIR64B does that.  Linux 6.12 has
 * no TDX guests, so only the model asks for it.
 */

#include <linux/cc_platform.h>
#include <linux/kvm_host.h>
#include <asm/cpufeature.h>
#include <asm/sev.h>
#include <asm/special_insns.h>

static bool gmem_has_rmp(void)
{
	return cc_platform_has(CC_ATTR_HOST_SEV_SNP);
}

/* What the RMP knows nothing of was never assigned: preparing it fails, too. */
static bool gmem_is_assigned(kvm_pfn_t pfn)
{
	bool assigned;
	int level;

	return !snp_lookup_rmpentry(pfn, &assigned, &level) && assigned;
}

/*
 * As kvm_arch_gmem_reclaim().  A page that is poisoned is not touched: it may
 * have no mapping any more by which caches could be flushed.
 */
static kvm_pfn_t gmem_reclaim_rmp(kvm_pfn_t start, kvm_pfn_t end)
{
	kvm_pfn_t pfn = start;

	while (pfn < end && !PageHWPoison(pfn_to_page(pfn)))
		pfn++;
	end = pfn;

	kvm_x86_call(gmem_invalidate)(start, end);

	for (pfn = start; pfn < end; pfn++) {
		if (gmem_is_assigned(pfn))
			break;
	}

	return pfn;
}

static void gmem_clear_page(void *page)
{
	size_t i;

	/* Without the instruction, a host that has TDX has no integrity. */
	if (!IS_ENABLED(CONFIG_INTEL_TDX_HOST) ||
	    !cpu_feature_enabled(X86_FEATURE_MOVDIR64B)) {
		clear_page(page);
		return;
	}

	for (i = 0; i < PAGE_SIZE; i += 64)
		movdir64b(page + i, empty_zero_page);
}

static void gmem_clear_pages(kvm_pfn_t start, kvm_pfn_t end)
{
	kvm_pfn_t pfn;

	for (pfn = start; pfn < end; pfn++) {
		if (!PageHWPoison(pfn_to_page(pfn)))
			gmem_clear_page(pfn_to_kaddr(pfn));
	}

	/* What MOVDIR64B writes is weakly ordered. */
	mb();
}

int kvm_arch_gmem_prepare(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn,
			  int max_order)
{
	if (IS_ENABLED(CONFIG_KVM_GMEM_TEST) && !gmem_has_rmp())
		return kvm_gmem_test_prepare(kvm, gfn, pfn, max_order) ?: 1;

	if (kvm->arch.vm_type != KVM_X86_SNP_VM)
		return 0;

	/*
	 * A memslot may take its shared pages from the file, too.  An SNP guest
	 * cannot use those if they are assigned to it.
	 */
	if (!kvm_mem_is_private(kvm, gfn))
		return 0;

	return kvm_x86_call(gmem_prepare)(kvm, pfn, gfn, max_order) ?: 1;
}

kvm_pfn_t kvm_arch_gmem_reclaim(kvm_pfn_t start, kvm_pfn_t end)
{
	if (gmem_has_rmp())
		return gmem_reclaim_rmp(start, end);

	end = kvm_gmem_test_reclaim(start, end);
	if (kvm_gmem_test_must_clear())
		gmem_clear_pages(start, end);
	return end;
}

int kvm_arch_gmem_move(struct kvm *dst, struct kvm *src)
{
	return kvm_gmem_test_move(dst, src);
}

/*
 * An SNP guest's vCPUs have their registers in pages of the guest.  Of an older
 * encrypted guest's pages, which may be shared memory in a file, caches have
 * lines that the next user's must not meet.
 */
void kvm_arch_gmem_zapped(struct kvm *kvm)
{
	kvm_arch_guest_memory_reclaimed(kvm);
	if (kvm->arch.vm_type == KVM_X86_SNP_VM)
		kvm_make_all_cpus_request(kvm, KVM_REQ_GMEM_CHECK_VMSA);
}

bool kvm_arch_gmem_tracks_pages(void)
{
	return gmem_has_rmp() || IS_ENABLED(CONFIG_KVM_GMEM_TEST);
}

bool kvm_arch_gmem_may_outlive(struct kvm *kvm)
{
	return kvm->arch.vm_type != KVM_X86_SNP_VM &&
	       !kvm_gmem_test_is_tied(kvm);
}

bool kvm_arch_gmem_may_share(struct kvm *kvm)
{
	return (kvm->arch.vm_type == KVM_X86_DEFAULT_VM ||
		kvm->arch.vm_type == KVM_X86_SW_PROTECTED_VM) &&
	       !kvm_gmem_test_is_tied(kvm);
}

/*
 * SEV and SEV-ES have keys and pinned memory to move as well, which svm/sev.c
 * does.  An SNP guest's context would have to follow its memory.
 */
bool kvm_arch_gmem_may_move(struct kvm *kvm)
{
	return kvm->arch.vm_type == KVM_X86_SW_PROTECTED_VM;
}
