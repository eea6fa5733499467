/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests that give memory to a second VM: the link, the move, and
 * a VM that is like another but for its view of the memory.
 */
#ifndef SELFTEST_KVM_GMEM_LINK_UTIL_H
#define SELFTEST_KVM_GMEM_LINK_UTIL_H

#include "gmem_util.h"

static inline void gmem_require_link(void)
{
	gmem_require_sw_protected();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD_LINK));
}

/* Link guest_memfd @fd into @vm; the new descriptor goes to *@link. */
static inline int __gmem_link(struct kvm_vm *vm, int fd, uint64_t flags,
			      int *link)
{
	struct kvm_link_guest_memfd arg = {
		.fd = fd,
		.flags = flags,
	};

	*link = __vm_ioctl(vm, KVM_LINK_GUEST_MEMFD, &arg);
	return *link < 0 ? errno : 0;
}

static inline int gmem_link(struct kvm_vm *vm, int fd, uint64_t flags)
{
	int link, err = __gmem_link(vm, fd, flags, &link);

	TEST_ASSERT(!err, "KVM_LINK_GUEST_MEMFD, flags 0x%lx: %s", flags,
		    strerror(err));
	return link;
}

/* Expect that a link fails with @err, and close its result if it does not. */
#define EXPECT_LINK_ERRNO(err, vm, fd, flags)				\
do {									\
	int __link, __err = __gmem_link(vm, fd, flags, &__link);	\
									\
	EXPECT_EQ(err, __err)						\
		TH_LOG("link should fail with %s", #err);		\
	if (!__err)							\
		close(__link);						\
} while (0)

/* Give @dst what the VM behind descriptor @src is; ends @src. */
static inline int __gmem_move(struct kvm_vm *dst, int src)
{
	return __vm_enable_cap(dst, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, src) ?
	       errno : 0;
}

static inline void gmem_move(struct kvm_vm *dst, struct kvm_vm *src)
{
	int err = __gmem_move(dst, src->fd);

	TEST_ASSERT(!err, "KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM: %s",
		    strerror(err));
}

/*
 * A VM with the same memory slots as one that gmem_vm_create() makes, so that a
 * move accepts it, bound to a link of @fd.  No memory attribute is set: without
 * a move the test makes the memory private itself.
 */
static inline void gmem_vm_create_linked(struct gmem_vm *g, size_t size, int fd,
					 uint64_t flags)
{
	gmem_vm_create_empty(g, size);
	g->fd = gmem_link(g->vm, fd, flags);
	gmem_vm_bind(g);
}

/* The guest can neither read nor write the private page at @offset. */
static inline void gmem_expect_no_access(struct gmem_vm *g, uint64_t offset)
{
	TEST_ASSERT_EQ(__gmem_guest_read(g, offset), EFAULT);
	gmem_expect_memory_fault(g, offset);
	TEST_ASSERT_EQ(__gmem_guest_fill(g, offset, sizeof(uint64_t), 0xbad),
		       EFAULT);
	gmem_expect_memory_fault(g, offset);
}

#endif /* SELFTEST_KVM_GMEM_LINK_UTIL_H */
