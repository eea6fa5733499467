/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VMM with one vCPU and one memory slot whose private half is a guest_memfd:
 * what any VMM for private memory needs, and no more. In a plain VM, which has
 * no private memory, the guest_memfd is all of the slot.
 *
 * Call the functions in the order in which they stand here. A failure that no
 * caller could mend ends the program with a message.
 */
#ifndef SAMPLES_KVM_VMM_H
#define SAMPLES_KVM_VMM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>

struct vmm {
	int kvm;		/* /dev/kvm */
	int vm;
	int gmem;		/* the private half: a guest_memfd */
	int shared_fd;		/* the shared half: a memfd; -1: plain */
	int vcpu;
	struct kvm_run *run;	/* why KVM_RUN came back */
	size_t run_size;
	void *shared;		/* the shared half, mapped */
	__u64 size;		/* of guest memory, in bytes */
	bool *is_private;	/* of each page; in the memfd; NULL: plain */
};

/* Returned by vmm_run() in place of an event. */
#define VMM_MEMORY_LOST	(-1)
#define VMM_STOPPED	(-2)

void vmm_create_vm(struct vmm *vmm);
void vmm_create_plain_vm(struct vmm *vmm);

/*
 * The halves of guest memory. The private one is new, or linked: the memory of
 * the VM that @gmem comes from. The VM has both halves until vmm_destroy().
 */
int vmm_create_gmem(const struct vmm *vmm, __u64 size);
int vmm_link_gmem(const struct vmm *vmm, int gmem, __u64 flags);
int vmm_create_shared(__u64 size);
void vmm_add_memory(struct vmm *vmm, __u64 size, int gmem, int shared);

/* The same for a plain VM. vmm->shared is the guest_memfd itself, mapped. */
int vmm_create_plain_gmem(const struct vmm *vmm, __u64 size);
void vmm_add_plain_memory(struct vmm *vmm, __u64 size, int gmem);

/* For memory whose contents are private already. */
void vmm_mark_private(struct vmm *vmm, __u64 gpa, __u64 size);

/* A second memory slot, a view of private memory from @offset on. */
void vmm_add_window(const struct vmm *vmm, __u64 gpa, __u64 size, int gmem,
		    __u64 offset);

void vmm_load(struct vmm *vmm, __u64 gpa, const void *data, size_t size);
void vmm_add_vcpu(struct vmm *vmm);

/* For a new guest. One that was handed over has its vCPU's state restored. */
void vmm_boot(struct vmm *vmm, __u64 entry, __u64 stack, __u64 arg);

/* Take over memory that was linked. @source is a VM's file descriptor. */
void vmm_move_from(const struct vmm *vmm, int source);

/*
 * Run the guest until it writes an event to GUEST_PORT, serving its conversions
 * on the way. VMM_MEMORY_LOST: KVM could not provide a page of guest memory,
 * and vmm->run->memory_fault says which. VMM_STOPPED: see vmm_stop().
 */
int vmm_run(struct vmm *vmm);

/*
 * Make vmm_run(), which thread @runner calls again and again, return
 * VMM_STOPPED. The vCPU's state is then complete: no exit is half served.
 */
void vmm_stop(struct vmm *vmm, pthread_t runner);

/* Read a statistic of the vCPU, for instance "pf_taken". */
__u64 vmm_read_stat(const struct vmm *vmm, const char *name);

void vmm_close_gmem(struct vmm *vmm);
void vmm_destroy(struct vmm *vmm);

#endif /* SAMPLES_KVM_VMM_H */
