/* SPDX-License-Identifier: GPL-2.0 */
/*
 * guest_memfd as seen by KVM's common code and by the architectures.
 *
 * KVM's core creates files, binds memslots to them and asks them for pfns; an
 * architecture is told when a page becomes a guest's and when it stops being
 * one.  Everything else is private to virt/kvm/guest_memfd/.
 */
#ifndef __LINUX_KVM_GMEM_H
#define __LINUX_KVM_GMEM_H

#include <linux/bits.h>
#include <linux/kvm_gmem_test.h>
#include <linux/kvm_types.h>
#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

struct kvm;
struct kvm_create_guest_memfd;
struct kvm_link_guest_memfd;
struct kvm_memory_attributes;
struct kvm_memory_slot;
struct module;

/**
 * struct kvm_gmem_vm - a VM's views of guest_memfd memory
 * @views: every &struct gmem_file that belongs to the VM
 * @lock: protects @views; a leaf
 * @zap_work: zaps what the VM maps, once its memory was moved
 * @test: the ownership model's
 */
struct kvm_gmem_vm {
	struct list_head views;
	/* protects views; a leaf */
	spinlock_t lock;
	struct delayed_work zap_work;
#ifdef CONFIG_KVM_GMEM_TEST
	struct kvm_gmem_test_vm test;
#endif
};

/**
 * struct kvm_gmem_source - one page of initial guest contents
 * @data: kernel buffer of PAGE_SIZE bytes with a copy of the user's page; NULL
 *	  if the guest is to find zeroes, which the page then holds
 * @copy_back: set by a failing callback that has put something into @data
 *	       which the user is to read, in place of what was there
 * @lost: set by a failing callback that could not take the page back from the
 *	  hardware
 */
struct kvm_gmem_source {
	void *data;
	bool copy_back;
	bool lost;
};

/*
 * Turn the page at @pfn, that will back @gfn, into initial guest memory, which
 * then is as if it had been prepared.  If that fails, take it back.
 */
typedef int (*kvm_gmem_populate_cb)(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn,
				    struct kvm_gmem_source *src, void *opaque);

/*
 * In struct kvm_memory_slot's flags: every access of the guest goes to the
 * guest_memfd, private or not.  userspace_addr is for KVM's own accesses only.
 */
#define KVM_MEMSLOT_GMEM_ONLY	BIT(17)

#ifdef CONFIG_KVM_PRIVATE_MEM
int kvm_gmem_init(struct module *module);
void kvm_gmem_exit(void);
void kvm_gmem_init_vm(struct kvm *kvm);
void kvm_gmem_destroy_vm(struct kvm *kvm);

int kvm_gmem_create(struct kvm *kvm, struct kvm_create_guest_memfd *args);
int kvm_gmem_link(struct kvm *kvm, struct kvm_link_guest_memfd __user *uargs);
int kvm_gmem_supported_links(struct kvm *kvm);
u64 kvm_gmem_supported_flags(struct kvm *kvm);
int kvm_gmem_move(struct kvm *dst, u64 src_fd);

int kvm_gmem_bind(struct kvm *kvm, struct kvm_memory_slot *slot,
		  unsigned int fd, u64 offset);
void kvm_gmem_bind_commit(struct kvm_memory_slot *slot);
void kvm_gmem_unbind(struct kvm_memory_slot *slot);

/* What Linux 6.12.118 calls in place of kvm_gmem_bind(). */
int kvm_gmem_prepare_memory_region(struct kvm *kvm,
				   struct kvm_memory_slot *slot,
				   unsigned int fd, u64 offset);
int kvm_gmem_commit_memory_region(struct kvm *kvm,
				  struct kvm_memory_slot *slot);

bool kvm_gmem_is_writable(const struct kvm_memory_slot *slot);
int kvm_gmem_get_pfn(struct kvm *kvm, struct kvm_memory_slot *slot, gfn_t gfn,
		     kvm_pfn_t *pfn, int *max_order);
long kvm_gmem_populate(struct kvm *kvm, gfn_t start, void __user *src,
		       long npages, kvm_gmem_populate_cb populate,
		       void *opaque);

bool kvm_gmem_find_gfn(struct kvm *kvm, kvm_pfn_t pfn, gfn_t *gfn);

/*
 * Arch hooks
 *
 * A page is prepared each time that it is handed out to be mapped at a gfn, so
 * that doing it again must be harmless.  If it was made a guest's at least once,
 * it is reclaimed, once, when nothing maps it any more and before the page
 * allocator can see it.
 */

/**
 * kvm_arch_gmem_prepare - make a page a guest's
 * @kvm: the VM that will map it
 * @gfn: where
 * @pfn: the page, which holds what the guest is to find
 * @max_order: the order of the largest mapping that may be made of it
 *
 * Called with the folio locked and its inode's invalidate_lock held.
 *
 * Return: 1 if the page has to be reclaimed, 0 if nobody keeps track of whose it
 * is, or any negative errno: then the page is not a guest's, unless it was before.
 */
int kvm_arch_gmem_prepare(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn,
			  int max_order);

/**
 * kvm_arch_gmem_reclaim - make pages the host's again
 * @start: pfn of the first page
 * @end: pfn behind the last one, 2 MiB away at most
 *
 * Return: @end, or the pfn of the first page that the hardware did not give
 * back.  The caller leaks that one, and goes on behind it.
 */
kvm_pfn_t kvm_arch_gmem_reclaim(kvm_pfn_t start, kvm_pfn_t end);

/**
 * kvm_arch_gmem_move - make all pages of one VM those of another
 * @dst: the VM that gets them; it has none, and none of its vCPUs runs
 * @src: the VM that had them; its vCPUs never run again
 *
 * Called when nothing else can fail any more, with the locks of a move.
 *
 * Return: 0, or any error: then nothing has changed.
 */
int kvm_arch_gmem_move(struct kvm *dst, struct kvm *src);

/*
 * Some of @kvm's pages are no longer mapped, and may be about to go: let no vCPU
 * use one that KVM has told the hardware about in other ways than by SPTEs.
 */
void kvm_arch_gmem_zapped(struct kvm *kvm);

/* Whether this machine knows of pages whose they are: if not, none is reclaimed. */
bool kvm_arch_gmem_tracks_pages(void);

/* Whether memory that @kvm used may be kept after @kvm is gone. */
bool kvm_arch_gmem_may_outlive(struct kvm *kvm);
/* Whether other VMs may use memory at the same time as @kvm. */
bool kvm_arch_gmem_may_share(struct kvm *kvm);
/* Whether all that makes up a VM of @kvm's type is what kvm_gmem_move() moves. */
bool kvm_arch_gmem_may_move(struct kvm *kvm);
#else
static inline int kvm_gmem_init(struct module *module)
{
	return 0;
}

static inline void kvm_gmem_exit(void)
{
}

static inline void kvm_gmem_init_vm(struct kvm *kvm)
{
}

static inline void kvm_gmem_destroy_vm(struct kvm *kvm)
{
}

static inline int kvm_gmem_bind(struct kvm *kvm, struct kvm_memory_slot *slot,
				unsigned int fd, u64 offset)
{
	WARN_ON_ONCE(1);
	return -EIO;
}

static inline void kvm_gmem_bind_commit(struct kvm_memory_slot *slot)
{
	WARN_ON_ONCE(1);
}

static inline int kvm_gmem_prepare_memory_region(struct kvm *kvm,
						 struct kvm_memory_slot *slot,
						 unsigned int fd, u64 offset)
{
	WARN_ON_ONCE(1);
	return -EIO;
}

static inline int kvm_gmem_commit_memory_region(struct kvm *kvm,
						struct kvm_memory_slot *slot)
{
	WARN_ON_ONCE(1);
	return -EIO;
}

static inline void kvm_gmem_unbind(struct kvm_memory_slot *slot)
{
	WARN_ON_ONCE(1);
}

static inline bool kvm_gmem_is_writable(const struct kvm_memory_slot *slot)
{
	return true;
}

static inline int kvm_gmem_get_pfn(struct kvm *kvm,
				   struct kvm_memory_slot *slot, gfn_t gfn,
				   kvm_pfn_t *pfn, int *max_order)
{
	WARN_ON_ONCE(1);
	return -EIO;
}

static inline bool kvm_gmem_find_gfn(struct kvm *kvm, kvm_pfn_t pfn,
				     gfn_t *gfn)
{
	return false;
}

static inline int kvm_gmem_move(struct kvm *dst, u64 src_fd)
{
	return -EINVAL;
}

static inline bool kvm_arch_gmem_may_move(struct kvm *kvm)
{
	return false;
}
#endif /* CONFIG_KVM_PRIVATE_MEM */

#ifdef CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES
u64 kvm_supported_mem_attributes(struct kvm *kvm);
unsigned long kvm_get_memory_attributes(struct kvm *kvm, gfn_t gfn);
int kvm_vm_ioctl_set_mem_attributes(struct kvm *kvm,
				    struct kvm_memory_attributes *attrs);
bool kvm_mem_attributes_are_uniform(struct kvm *kvm, gfn_t gfn,
				    unsigned long nr);
void kvm_mem_attributes_move(struct kvm *dst, struct kvm *src);
void kvm_mem_attributes_destroy(struct kvm *kvm);
#else
static inline bool kvm_mem_attributes_are_uniform(struct kvm *kvm, gfn_t gfn,
						  unsigned long nr)
{
	return true;
}

static inline void kvm_mem_attributes_destroy(struct kvm *kvm)
{
}
#endif /* CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES */

#endif /* __LINUX_KVM_GMEM_H */
