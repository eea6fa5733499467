/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What KVM knows about a guest beside its memory, as bytes to be sent.
 *
 * Sender and receiver are built from one source here. VMMs of different
 * versions need a format that has a version.
 */
#ifndef SAMPLES_KVM_VM_STATE_H
#define SAMPLES_KVM_VM_STATE_H

#include <linux/kvm.h>

#include "vmm.h"

#define MAX_CPUID	256
#define MAX_MSRS	512
#define NR_IRQCHIPS	3		/* two PICs and an I/O APIC */

/* The features that the guest has found. They do not change while it runs. */
struct cpuid_state {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[MAX_CPUID];
};

struct msr_state {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[MAX_MSRS];
};

/* A member for each ioctl. Complete only when the vCPU was stopped. */
struct vm_state {
	struct kvm_mp_state mp_state;
	struct kvm_sregs2 sregs;
	struct kvm_regs regs;
	struct kvm_xcrs xcrs;
	__u8 xsave[sizeof(struct kvm_xsave)];
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	__u64 tsc_offset;
	struct kvm_irqchip irqchips[NR_IRQCHIPS];
	struct kvm_clock_data clock;
	struct msr_state msrs;
};

void save_cpuid(const struct vmm *vmm, struct cpuid_state *cpuid);
void restore_cpuid(const struct vmm *vmm, struct cpuid_state *cpuid);

void save_state(const struct vmm *vmm, struct vm_state *state);
void restore_state(const struct vmm *vmm, struct vm_state *state);

#endif /* SAMPLES_KVM_VM_STATE_H */
