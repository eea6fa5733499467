// SPDX-License-Identifier: GPL-2.0
/*
 * Host mappings of linked memory: each has the rights and the state of the view
 * that it was made through.
 */
#include <sys/uio.h>

#include "gmem_mmap_plain.h"

#define SHARE	     KVM_LINK_GUEST_MEMFD_SHARE
#define READONLY     KVM_LINK_GUEST_MEMFD_READONLY
#define NO_FALLOCATE KVM_LINK_GUEST_MEMFD_NO_FALLOCATE

TEST_F(plain, two_vms_and_the_host)
{
	struct gmem_vm *a = &self->g, b;
	long base;

	gmem_host_fill(a->shared, TEST_SIZE, 0x51);
	base = gmem_file_pages();
	gmem_plain_create_linked(&b, TEST_SIZE, a->fd, SHARE);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0x51);
	gmem_host_expect(b.shared, TEST_SIZE, 0x51);
	gmem_guest_fill(&b, 0, HALF, 0x52);
	gmem_host_fill(b.shared + HALF, HALF, 0x53);
	gmem_guest_expect(a, 0, HALF, 0x52);
	gmem_guest_expect(a, HALF, HALF, 0x53);
	gmem_host_expect(a->shared, HALF, 0x52);
	EXPECT_TRUE(gmem_pages_are(base, 0));

	/* All four lose a page at once. */
	gmem_punch(b.fd, 0, HALF);
	EXPECT_TRUE(gmem_pages_are(base, -NR_PAGES / 2));
	gmem_host_expect(a->shared, HALF, 0);
	gmem_host_expect(b.shared, HALF, 0);
	gmem_guest_expect(a, 0, HALF, 0);
	gmem_guest_expect(&b, 0, HALF, 0);

	/* The first VM goes, the second has it all. */
	gmem_vm_free(a);
	gmem_guest_expect(&b, HALF, HALF, 0x53);
	gmem_host_expect(b.shared + HALF, HALF, 0x53);
	gmem_vm_free(&b);
}

TEST_F(plain, read_only_view)
{
	struct gmem_vm *a = &self->g, b;
	struct iovec local, remote;
	uint64_t val = 0xbad;
	char path[64];
	int fd;

	gmem_guest_fill(a, 0, HALF, 0x51);
	gmem_plain_create_linked(&b, TEST_SIZE, a->fd, SHARE | READONLY);

	/* The host cannot get at it for writing in any way. */
	EXPECT_ERRNO(EACCES, mmap(NULL, TEST_SIZE, PROT_READ | PROT_WRITE,
				  MAP_SHARED, b.fd, 0));
	EXPECT_ERRNO(EACCES, mmap(NULL, TEST_SIZE, PROT_WRITE, MAP_SHARED,
				  b.fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, TEST_SIZE, PROT_READ, MAP_PRIVATE,
				  b.fd, 0));
	EXPECT_ERRNO(EACCES, mprotect(b.shared, TEST_SIZE,
				      PROT_READ | PROT_WRITE));
	EXPECT_ERRNO(EACCES, mprotect(b.shared, TEST_SIZE, PROT_WRITE));
	EXPECT_EQ(SIGSEGV, gmem_try_write(b.shared, 0xbad));
	local = (struct iovec){ &val, sizeof(val) };
	remote = (struct iovec){ b.shared, sizeof(val) };
	EXPECT_ERRNO(EFAULT, process_vm_writev(getpid(), &local, 1, &remote, 1,
					       0));
	snprintf(path, sizeof(path), "/proc/%d/mem", getpid());
	fd = open(path, O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, pwrite(fd, &val, sizeof(val), (uintptr_t)b.shared));
	EXPECT_EQ(sizeof(val), pread(fd, &val, sizeof(val),
				     (uintptr_t)b.shared));
	EXPECT_EQ(0x51, val);
	close(fd);
	EXPECT_NE(0, madvise(b.shared, PAGE_SIZE, MADV_POPULATE_WRITE));
	EXPECT_NE(0, madvise(b.shared, PAGE_SIZE, MADV_REMOVE));

	/* Nor its guest */
	EXPECT_EQ(EFAULT, __gmem_guest_fill(&b, 0, 8, 0xbad));
	gmem_expect_plain_fault(&b, 0);
	EXPECT_EQ(EFAULT, __gmem_guest_fill(&b, HALF, 8, 0xbad));
	gmem_expect_plain_fault(&b, HALF);

	/* But both can read all, and see who may write. */
	gmem_host_expect(b.shared, HALF, 0x51);
	gmem_host_expect(b.shared + HALF, HALF, 0);
	gmem_guest_expect(&b, 0, HALF, 0x51);
	gmem_host_fill(a->shared, TEST_SIZE, 0x52);
	gmem_host_expect(b.shared, TEST_SIZE, 0x52);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0x52);
	gmem_punch(a->fd, 0, TEST_SIZE);
	gmem_host_expect(b.shared, HALF, 0);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0);
	EXPECT_EQ(EFAULT, __gmem_guest_fill(&b, 0, 8, 0xbad));
	EXPECT_EQ(SIGSEGV, gmem_try_write(b.shared, 0xbad));
	gmem_host_expect(a->shared, TEST_SIZE, 0);

	/* A child gets no more. */
	if (!gmem_fork())
		_exit(!mprotect(b.shared, PAGE_SIZE, PROT_WRITE) ||
		      gmem_try_write(b.shared, 0xbad) != SIGSEGV);
	ASSERT_LT(0, wait(&fd));
	EXPECT_EQ(0, fd);
	gmem_vm_free(&b);
}

TEST_F(plain, view_without_fallocate)
{
	struct gmem_vm *a = &self->g, b;

	gmem_plain_create_linked(&b, TEST_SIZE, a->fd, SHARE | NO_FALLOCATE);
	gmem_host_fill(b.shared, TEST_SIZE, 0x51);
	gmem_guest_expect(a, 0, TEST_SIZE, 0x51);
	EXPECT_EQ(EPERM, __gmem_punch(b.fd, 0, PAGE_SIZE));
	EXPECT_ERRNO(EPERM, madvise(b.shared, PAGE_SIZE, MADV_REMOVE));
	gmem_host_expect(a->shared, TEST_SIZE, 0x51);
	gmem_vm_free(&b);
}

/* The second VM is @b, with a handover link of @fd: nothing of it works. */
static void expect_pending(struct gmem_vm *b)
{
	gmem_expect_sigbus(b->shared, BUS_ADRERR);
	gmem_expect_sigbus(b->shared + HALF, BUS_ADRERR);
	TEST_ASSERT_EQ(__gmem_guest_read(b, 0), EFAULT);
	gmem_expect_plain_fault(b, 0);
	TEST_ASSERT_EQ(__gmem_guest_fill(b, HALF, 8, 0xbad), EFAULT);
	gmem_expect_plain_fault(b, HALF);
	TEST_ASSERT(madvise(b->shared, PAGE_SIZE, MADV_POPULATE_WRITE),
		    "populated a pending view");
	TEST_ASSERT(madvise(b->shared, PAGE_SIZE, MADV_REMOVE),
		    "punched a pending view");
}

TEST_F(plain, handed_over_when_the_first_vm_ends)
{
	struct gmem_vm *a = &self->g, b;
	void *old;

	gmem_guest_fill(a, 0, TEST_SIZE, 0x51);
	gmem_plain_create_linked(&b, TEST_SIZE, a->fd, 0);
	expect_pending(&b);
	gmem_host_fill(a->shared, HALF, 0x52);
	gmem_guest_expect(a, 0, HALF, 0x52);
	expect_pending(&b);

	/* The old VMM keeps its mapping, which does not keep its VM. */
	old = gmem_map(a->fd, TEST_SIZE);
	gmem_vm_free(a);
	gmem_host_expect(b.shared, HALF, 0x52);
	gmem_guest_expect(&b, 0, HALF, 0x52);
	gmem_guest_expect(&b, HALF, HALF, 0x51);
	gmem_guest_fill(&b, 0, TEST_SIZE, 0x53);
	gmem_host_expect(b.shared, TEST_SIZE, 0x53);
	gmem_host_expect(old, TEST_SIZE, 0x53);
	gmem_punch(b.fd, 0, TEST_SIZE);
	gmem_host_expect(old, TEST_SIZE, 0);
	munmap(old, TEST_SIZE);
	gmem_vm_free(&b);
}

/* The VM lives on without the memory: a mapping is a use of the view. */
TEST_F(plain, handed_over_when_the_first_view_goes)
{
	struct gmem_vm *a = &self->g, b;

	gmem_guest_fill(a, 0, TEST_SIZE, 0x51);
	gmem_plain_create_linked(&b, TEST_SIZE, a->fd, 0);
	gmem_delete_slot(a->vm, GMEM_SLOT);
	expect_pending(&b);
	gmem_vm_close_fd(a);
	expect_pending(&b);
	gmem_host_expect(a->shared, TEST_SIZE, 0x51);
	munmap(a->shared, TEST_SIZE);
	a->shared = NULL;
	gmem_host_expect(b.shared, TEST_SIZE, 0x51);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0x51);
	gmem_host_fill(b.shared, TEST_SIZE, 0x52);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0x52);
	gmem_vm_free(&b);
}

TEST_F(plain, shared_memory_is_not_for_vms_that_have_private_memory)
{
	struct kvm_vm *vm;
	int fd;

	if (!gmem_has_sw_protected())
		SKIP(return, "no software-protected VMs");

	vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	EXPECT_LINK_ERRNO(EINVAL, vm, self->g.fd, SHARE);
	EXPECT_LINK_ERRNO(EINVAL, vm, self->g.fd, SHARE | READONLY);
	EXPECT_LINK_ERRNO(EINVAL, vm, self->g.fd, 0);

	/* Both can have this. */
	fd = vm_create_guest_memfd(self->g.vm, TEST_SIZE, GMEM_MMAP);
	close(gmem_link(vm, fd, SHARE));
	close(fd);
	kvm_vm_free(vm);
}

/* A move leaves nothing to the mappings of the source. */
TEST_F(plain, no_mapping_survives_a_move)
{
	struct gmem_vm src, dst;
	void *mem;

	if (!gmem_has_sw_protected())
		SKIP(return, "no software-protected VMs");

	gmem_vm_create_empty(&src, TEST_SIZE);
	src.fd = vm_create_guest_memfd(src.vm, TEST_SIZE, GMEM_MMAP);
	gmem_vm_bind(&src);
	gmem_guest_fill(&src, 0, TEST_SIZE, 0x51);
	mem = gmem_map(src.fd, TEST_SIZE);
	gmem_expect_sigbus(mem, BUS_ADRERR);

	gmem_vm_create_linked(&dst, TEST_SIZE, src.fd, 0);
	gmem_move(dst.vm, src.vm);
	gmem_guest_expect(&dst, 0, TEST_SIZE, 0x51);
	gmem_expect_sigbus(mem, BUS_ADRERR);
	munmap(mem, TEST_SIZE);
	mem = gmem_map(src.fd, TEST_SIZE);
	gmem_expect_sigbus(mem, BUS_ADRERR);
	EXPECT_NE(0, madvise(mem, TEST_SIZE, MADV_REMOVE));
	munmap(mem, TEST_SIZE);
	gmem_vm_free(&src);
	gmem_guest_expect(&dst, 0, TEST_SIZE, 0x51);
	gmem_vm_free(&dst);
}

int main(int argc, char *argv[])
{
	gmem_require_mmap();
	return test_harness_run(argc, argv);
}
