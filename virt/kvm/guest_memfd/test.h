/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The ownership model's private header: what test.c lets test_debugfs.c do.
 */
#ifndef __KVM_GMEM_TEST_H
#define __KVM_GMEM_TEST_H

#include <linux/kvm_host.h>
#include <linux/list.h>

/* What the model refuses. */
enum gmem_test_violation {
	GMEM_TEST_UNPREPARED,	/* mapped, and not a guest's */
	GMEM_TEST_SECOND_OWNER,	/* prepared or mapped, and another guest's */
	GMEM_TEST_WRONG_GFN,	/* prepared or mapped at a second gfn */
	GMEM_TEST_FREE_ASSIGNED,/* freed, and a guest's */
	GMEM_TEST_OWNER_REUSED,	/* a tied VM went before its pages did */
	GMEM_TEST_MOVED_OWNER,	/* prepared by the source of a move */
	GMEM_TEST_NOT_ASSIGNED,	/* reclaimed, and nobody's, or not any more */
	GMEM_TEST_MAPPED,	/* reclaimed, and mapped */
	GMEM_TEST_NR_VIOLATIONS,
};

/* What happens to pages and owners, and how often it did. */
enum gmem_test_transition {
	GMEM_TEST_ASSIGNED,	/* a page became a guest's */
	GMEM_TEST_INHERITED,	/* ... of another VM than before, which left it */
	GMEM_TEST_SHARED,	/* ... also another VM's */
	GMEM_TEST_REBOUND,	/* the same VM has it in another memslot now */
	GMEM_TEST_MOVED,	/* a VM with all its pages became another VM */
	GMEM_TEST_UNDONE,	/* populate failed, and took it back */
	GMEM_TEST_RECLAIMED,	/* the page is the host's again */
	GMEM_TEST_LEAKED,	/* reclaim failed */
	GMEM_TEST_FREED,	/* the page allocator has what was reclaimed */
	GMEM_TEST_NR_TRANSITIONS,
};

/**
 * struct gmem_test_owner - a virtual machine, as hardware would number it
 * @node: in the list of all owners
 * @kvm: the VM whose it is now, NULL once that is gone
 * @number: like an ASID; taken for as long as the owner is there
 * @tied: see &struct kvm_gmem_test_vm
 * @nr_pages: pages that the model knows, and which are or were the owner's
 * @nr_assigned: how many of these are, and were not leaked
 * @count: its share of the transitions
 */
struct gmem_test_owner {
	struct list_head node;
	struct kvm *kvm;
	int number;
	bool tied;
	unsigned long nr_pages;
	unsigned long nr_assigned;
	unsigned long count[GMEM_TEST_NR_TRANSITIONS];
};

/* What a VM may do with a page that is another's. */
enum gmem_test_claim {
	GMEM_TEST_CLAIM_NONE,
	GMEM_TEST_CLAIM_REVOKED,	/* none, any more */
	GMEM_TEST_CLAIM_SHARE,
	GMEM_TEST_CLAIM_INHERIT,
};

extern atomic_long_t gmem_test_violations[GMEM_TEST_NR_VIOLATIONS];
extern atomic_long_t gmem_test_transitions[GMEM_TEST_NR_TRANSITIONS];
extern struct list_head gmem_test_owners;
extern spinlock_t gmem_test_lock;

struct gmem_test_owner *gmem_test_new_owner(struct kvm *kvm, bool tied);
void gmem_test_owner_gone(struct gmem_test_owner *owner);

int gmem_test_assign(struct gmem_test_owner *owner, gfn_t gfn, kvm_pfn_t pfn,
		     enum gmem_test_claim claim);
bool gmem_test_map(struct gmem_test_owner *owner, gfn_t gfn, kvm_pfn_t pfn,
		   u64 vm_bit);
void gmem_test_undo(kvm_pfn_t pfn);
struct gmem_test_owner *gmem_test_vm_owner(struct kvm *kvm);
unsigned long gmem_test_nr_pages(void);
void gmem_test_restore(void);

/* test_debugfs.c */
void gmem_test_debugfs_init(struct dentry *dir);
void gmem_test_debugfs_exit(void);
void gmem_test_record(kvm_pfn_t pfn);
bool gmem_test_tied(void);

/* test_delay.c */
void gmem_test_delay_init(struct dentry *dir);
void gmem_test_delay_exit(void);

#endif /* __KVM_GMEM_TEST_H */
