// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_PRE_FAULT_MEMORY: when to try again, and when to give up.
 */

/**
 * DOC: Prefault
 *
 * A fault that cannot be served now is retried.  In KVM_RUN that means a way
 * through vcpu_run(), where requests are served and kvm->srcu is left.  A
 * prefault retries in a loop that does neither.  So it would wait for ever for
 * a memslot that is being deleted to go, while the deletion waits for the
 * prefault to leave kvm->srcu, and on a root that has become obsolete it would
 * never be able to install anything.
 */

#include <linux/kvm_host.h>

#include "mmu.h"
#include "prefault.h"

/**
 * kvm_mmu_prefault_attempt - get ready for one attempt to prefault
 * @vcpu: the vCPU, loaded, with kvm->srcu held for reading
 * @gpa: what is going to be mapped
 *
 * Return: 0; -EAGAIN if userspace has to come back for this to make progress:
 * the memslot is being deleted or moved, or the VM has died (and the next ioctl
 * will say so); or why there is no root.
 */
int kvm_mmu_prefault_attempt(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_memory_slot *slot;

	if (READ_ONCE(vcpu->kvm->vm_dead))
		return -EAGAIN;

	slot = kvm_vcpu_gfn_to_memslot(vcpu, gpa_to_gfn(gpa));
	if (slot && slot->flags & KVM_MEMSLOT_INVALID)
		return -EAGAIN;

	if (kvm_check_request(KVM_REQ_MMU_FREE_OBSOLETE_ROOTS, vcpu))
		kvm_mmu_free_obsolete_roots(vcpu);

	return kvm_mmu_reload(vcpu);
}
