/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VMM with one vCPU and one memory slot whose private half is a guest_memfd:
 * what any VMM for private memory needs, and no more.
 *
 * Call the functions in the order in which they stand here. A failure that no
 * caller could mend ends the program with a message.
 */
#ifndef SAMPLES_KVM_VMM_H
#define SAMPLES_KVM_VMM_H

#include <linux/kvm.h>
#include <stdbool.h>

struct vmm {
	int kvm;		/* /dev/kvm */
	int vm;
	int gmem;		/* the guest_memfd */
	int vcpu;
	struct kvm_run *run;	/* why KVM_RUN came back */
	size_t run_size;
	void *shared;		/* the shared half of guest memory */
	__u64 size;		/* of guest memory, in bytes */
	bool *is_private;	/* one for each page of guest memory */
};

/* Returned by vmm_run() in place of an event. */
#define VMM_MEMORY_LOST	(-1)

void vmm_create_vm(struct vmm *vmm);
void vmm_add_memory(struct vmm *vmm, __u64 size);
void vmm_load(struct vmm *vmm, __u64 gpa, const void *data, size_t size);
void vmm_add_vcpu(struct vmm *vmm, __u64 entry, __u64 stack, __u64 arg);

/*
 * Run the guest until it writes an event to GUEST_PORT, serving its conversions
 * on the way. VMM_MEMORY_LOST: KVM could not provide a page of guest memory,
 * and vmm->run->memory_fault says which.
 */
int vmm_run(struct vmm *vmm);

/* Read a statistic of the vCPU, for instance "pf_taken". */
__u64 vmm_read_stat(const struct vmm *vmm, const char *name);

void vmm_close_gmem(struct vmm *vmm);
void vmm_destroy(struct vmm *vmm);

#endif /* SAMPLES_KVM_VMM_H */
