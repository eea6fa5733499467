/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_PREFAULT_H
#define __KVM_X86_PREFAULT_H

struct kvm_vcpu;

int kvm_mmu_prefault_attempt(struct kvm_vcpu *vcpu, gpa_t gpa);

#endif /* __KVM_X86_PREFAULT_H */
