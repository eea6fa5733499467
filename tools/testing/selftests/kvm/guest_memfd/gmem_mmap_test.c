// SPDX-License-Identifier: GPL-2.0
/*
 * Host mappings: which memory can be mapped, and that the host and the guest see
 * the same pages, whatever happens to these.
 */
#include <sys/uio.h>

#include "gmem_mmap_plain.h"
#include "gmem_poison_util.h"

/* The tests are for both of KVM's MMUs: it must be the one that was asked for. */
TEST(shadow_paging)
{
	if (!gmem_booted_with(".npt=0"))
		SKIP(return, "only with kvm_amd.npt=0 kvm_intel.ept=0");

	EXPECT_FALSE(kvm_is_tdp_enabled());
}

/*
 * Flags x types of VMs
 */

FIXTURE(matrix)
{
	struct gmem_usage usage;
	struct gmem_vm g;
	void *other;		/* what is at the slot's userspace_addr */
};

FIXTURE_VARIANT(matrix)
{
	uint32_t type;
	uint64_t flags;
	int create_err;
	int map_err;		/* of a shared mapping */
	int private_map_err;
	bool host_can_touch;
	bool gmem_only;		/* does the guest find the file's pages */
};

FIXTURE_VARIANT_ADD(matrix, default_none)
{
	.type = VM_TYPE_DEFAULT,
	.flags = 0,
	.map_err = ENODEV,
	.private_map_err = ENODEV,
};

FIXTURE_VARIANT_ADD(matrix, default_mmap)
{
	.type = VM_TYPE_DEFAULT,
	.flags = GMEM_MMAP,
	.private_map_err = EINVAL,
	.gmem_only = true,
};

FIXTURE_VARIANT_ADD(matrix, default_init_shared)
{
	.type = VM_TYPE_DEFAULT,
	.flags = GMEM_INIT_SHARED,
	.map_err = ENODEV,
	.private_map_err = ENODEV,
};

FIXTURE_VARIANT_ADD(matrix, default_both)
{
	.type = VM_TYPE_DEFAULT,
	.flags = GMEM_BOTH,
	.private_map_err = EINVAL,
	.host_can_touch = true,
	.gmem_only = true,
};

FIXTURE_VARIANT_ADD(matrix, sw_protected_none)
{
	.type = KVM_X86_SW_PROTECTED_VM,
	.flags = 0,
	.map_err = ENODEV,
	.private_map_err = ENODEV,
};

FIXTURE_VARIANT_ADD(matrix, sw_protected_mmap)
{
	.type = KVM_X86_SW_PROTECTED_VM,
	.flags = GMEM_MMAP,
	.private_map_err = EINVAL,
	.gmem_only = true,
};

FIXTURE_VARIANT_ADD(matrix, sw_protected_init_shared)
{
	.type = KVM_X86_SW_PROTECTED_VM,
	.flags = GMEM_INIT_SHARED,
	.create_err = EINVAL,
};

FIXTURE_VARIANT_ADD(matrix, sw_protected_both)
{
	.type = KVM_X86_SW_PROTECTED_VM,
	.flags = GMEM_BOTH,
	.create_err = EINVAL,
};

FIXTURE_SETUP(matrix)
{
	if (variant->type == KVM_X86_SW_PROTECTED_VM &&
	    !gmem_has_sw_protected())
		SKIP(return, "no software-protected VMs");

	gmem_usage_get(&self->usage);
	gmem_vm_create_type(&self->g, TEST_SIZE, variant->type);
	self->other = gmem_mmap(TEST_SIZE);
	if (!variant->create_err)
		self->g.fd = vm_create_guest_memfd(self->g.vm, TEST_SIZE,
						   variant->flags);
}

FIXTURE_TEARDOWN(matrix)
{
	gmem_vm_free(&self->g);
	munmap(self->other, TEST_SIZE);
	gmem_usage_check(&self->usage);
}

TEST_F(matrix, creation)
{
	struct kvm_vm *vm = self->g.vm;
	int fd;

	if (variant->create_err) {
		EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(vm, TEST_SIZE,
							     variant->flags));
		return;
	}

	fd = __vm_create_guest_memfd(vm, TEST_SIZE, variant->flags);
	EXPECT_LE(0, fd);
	close(fd);
	EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(vm, TEST_SIZE + 1,
						     variant->flags));
	EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(vm, 0, variant->flags));
}

TEST_F(matrix, capability_tells_which_flags)
{
	uint64_t flags = vm_check_cap(self->g.vm, KVM_CAP_GUEST_MEMFD_FLAGS);
	int i, fd;

	EXPECT_EQ(1, vm_check_cap(self->g.vm, KVM_CAP_GUEST_MEMFD));
	EXPECT_EQ(variant->type == VM_TYPE_DEFAULT ? GMEM_BOTH : GMEM_MMAP,
		  flags);
	EXPECT_EQ(!variant->create_err, !(variant->flags & ~flags));
	for (i = 0; i < 64; i++) {
		fd = __vm_create_guest_memfd(self->g.vm, PAGE_SIZE, BIT_ULL(i));
		EXPECT_EQ(!!(flags & BIT_ULL(i)), fd >= 0)
			TH_LOG("flag %d", i);
		if (fd >= 0)
			close(fd);
	}
}

TEST_F(matrix, mapping)
{
	int fd = self->g.fd;
	void *mem;

	if (variant->create_err)
		return;

	EXPECT_ERRNO(variant->private_map_err,
		     mmap(NULL, TEST_SIZE, PROT_READ, MAP_PRIVATE, fd, 0));
	if (variant->map_err) {
		EXPECT_ERRNO(variant->map_err, mmap(NULL, TEST_SIZE, PROT_READ,
						    MAP_SHARED, fd, 0));
		return;
	}

	/* What protection there is, and the offset, do not matter. */
	munmap(gmem_map_prot(fd, TEST_SIZE, PROT_NONE), TEST_SIZE);
	munmap(gmem_map_prot(fd, TEST_SIZE, PROT_READ), TEST_SIZE);
	munmap(gmem_map_prot(fd, TEST_SIZE, PROT_WRITE), TEST_SIZE);
	mem = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED_VALIDATE, fd, HALF);
	ASSERT_NE(MAP_FAILED, mem);
	munmap(mem, PAGE_SIZE);

	/* Neither memory nor its size is a reason to refuse. */
	mem = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, TEST_SIZE);
	ASSERT_NE(MAP_FAILED, mem);
	munmap(mem, PAGE_SIZE);
	EXPECT_ERRNO(EPERM, mmap(NULL, PAGE_SIZE, PROT_READ | PROT_EXEC,
				 MAP_SHARED, fd, 0));
	EXPECT_ERRNO(EOPNOTSUPP, mmap(NULL, PAGE_SIZE, PROT_READ,
				      MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0));
}

TEST_F(matrix, host_touch)
{
	long base;
	void *mem;

	if (variant->create_err || variant->map_err)
		return;

	base = gmem_file_pages();
	mem = gmem_map(self->g.fd, TEST_SIZE);
	if (variant->host_can_touch) {
		gmem_host_expect(mem, HALF, 0);
		gmem_host_fill(mem, TEST_SIZE, 0x600d);
		gmem_host_expect(mem, TEST_SIZE, 0x600d);
		EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	} else {
		gmem_expect_sigbus(mem, BUS_ADRERR);
		gmem_allocate(self->g.fd, 0, TEST_SIZE);
		gmem_expect_sigbus(mem, BUS_ADRERR);
		gmem_expect_sigbus(mem + HALF, BUS_ADRERR);
		EXPECT_ERRNO(EFAULT, madvise(mem, PAGE_SIZE,
					     MADV_POPULATE_READ));
		EXPECT_ERRNO(EFAULT, madvise(mem, PAGE_SIZE,
					     MADV_POPULATE_WRITE));
	}
	munmap(mem, TEST_SIZE);
}

/* What the guest finds, as shared memory and, if it can be that, as private. */
TEST_F(matrix, guest_touch)
{
	struct gmem_vm *g = &self->g;
	void *mem = NULL;

	if (variant->create_err)
		return;

	gmem_host_fill(self->other, TEST_SIZE, 0xbad);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
		      TEST_SIZE, self->other, g->fd, 0);
	if (!variant->gmem_only) {
		gmem_guest_expect(g, 0, TEST_SIZE, 0xbad);
		gmem_guest_fill(g, 0, TEST_SIZE, 0x50);
		gmem_host_expect(self->other, TEST_SIZE, 0x50);
	} else {
		gmem_guest_expect(g, 0, TEST_SIZE, 0);
		gmem_guest_fill(g, 0, TEST_SIZE, 0x50);
		gmem_host_expect(self->other, TEST_SIZE, 0xbad);
		mem = gmem_map(g->fd, TEST_SIZE);
	}
	if (variant->host_can_touch)
		gmem_host_expect(mem, TEST_SIZE, 0x50);
	else if (mem)
		gmem_expect_sigbus(mem, BUS_ADRERR);

	if (variant->type == KVM_X86_SW_PROTECTED_VM) {
		vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
		gmem_guest_expect(g, 0, TEST_SIZE,
				  variant->gmem_only ? 0x50 : 0);
		gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
		gmem_punch(g->fd, 0, HALF);
		gmem_guest_expect(g, 0, HALF, 0);
		gmem_guest_expect(g, HALF, HALF, 0x51);
		vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE);
		gmem_guest_expect(g, HALF, HALF,
				  variant->gmem_only ? 0x51 : 0x50);
		gmem_punch(g->fd, HALF, HALF);
		gmem_guest_expect(g, HALF, HALF,
				  variant->gmem_only ? 0 : 0x50);
	} else {
		gmem_punch(g->fd, 0, TEST_SIZE);
		gmem_guest_expect(g, 0, TEST_SIZE,
				  variant->gmem_only ? 0 : 0x50);
	}
	if (mem)
		munmap(mem, TEST_SIZE);
}

TEST_F(matrix, no_dirty_log_and_no_read_only_slot)
{
	const uint32_t more[] = {
		KVM_MEM_LOG_DIRTY_PAGES,
		KVM_MEM_READONLY,
		KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY,
	};
	struct gmem_vm *g = &self->g;
	int i;

	if (variant->create_err)
		return;

	for (i = 0; i < ARRAY_SIZE(more); i++) {
		EXPECT_EQ(EINVAL, __gmem_set_slot(g->vm, GMEM_SLOT,
						  KVM_MEM_GUEST_MEMFD | more[i],
						  GMEM_GPA, TEST_SIZE,
						  self->other, g->fd, 0));
	}
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
		      TEST_SIZE, self->other, g->fd, 0);
	for (i = 0; i < ARRAY_SIZE(more); i++) {
		EXPECT_EQ(EINVAL, __gmem_set_slot(g->vm, GMEM_SLOT,
						  KVM_MEM_GUEST_MEMFD | more[i],
						  GMEM_GPA, TEST_SIZE,
						  self->other, g->fd, 0));
		EXPECT_EQ(EINVAL, __gmem_set_slot(g->vm, GMEM_SLOT,
						  more[i],
						  GMEM_GPA, TEST_SIZE,
						  self->other, g->fd, 0));
	}
	EXPECT_EQ(0, __gmem_guest_read(g, 0));
}

/*
 * An ordinary VM whose memory the host maps
 */

TEST_F(plain, host_and_guest_see_one_page)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();

	gmem_host_fill(g->shared, HALF, 0x51);
	gmem_guest_expect(g, 0, HALF, 0x51);
	gmem_guest_fill(g, HALF, HALF, 0x52);
	gmem_host_expect(g->shared + HALF, HALF, 0x52);

	/* Each writes what the other has touched first. */
	gmem_guest_fill(g, 0, HALF, 0x53);
	gmem_host_expect(g->shared, HALF, 0x53);
	gmem_host_fill(g->shared + HALF, HALF, 0x54);
	gmem_guest_expect(g, HALF, HALF, 0x54);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
}

TEST_F(plain, every_mapping_shows_the_same)
{
	struct gmem_vm *g = &self->g;
	void *all = gmem_map(g->fd, TEST_SIZE);
	void *half = mmap(NULL, HALF, PROT_READ, MAP_SHARED, g->fd, HALF);

	ASSERT_NE(MAP_FAILED, half);
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(all, TEST_SIZE, 0x51);
	gmem_host_expect(half, HALF, 0x51);
	gmem_host_fill(all, TEST_SIZE, 0x52);
	gmem_host_expect(half, HALF, 0x52);
	gmem_host_expect(g->shared, TEST_SIZE, 0x52);
	munmap(all, TEST_SIZE);
	munmap(half, HALF);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x52);
}

/* The first touch is the host's, the guest's, or somebody's who allocates. */
TEST_F(plain, new_memory_is_zero)
{
	const size_t part = TEST_SIZE / 4;
	struct gmem_vm *g = &self->g;
	int i;

	gmem_pollute_free_memory();
	for (i = 0; i < 3; i++) {
		gmem_allocate(g->fd, 0, part);
		gmem_host_expect(g->shared, 2 * part, 0);
		gmem_guest_expect(g, 0, TEST_SIZE, 0);
		gmem_host_expect(g->shared, TEST_SIZE, 0);
		gmem_host_fill(g->shared, TEST_SIZE, 0x5a);
		gmem_punch(g->fd, 0, TEST_SIZE);
		gmem_pollute_free_memory();
	}
}

TEST_F(plain, first_touch_may_be_a_write)
{
	struct gmem_vm *g = &self->g;

	gmem_pollute_free_memory();
	gmem_host_fill(g->shared, 8, 0x51);
	gmem_host_expect(g->shared + 8, PAGE_SIZE - 8, 0);
	gmem_guest_expect(g, 0, 8, 0x51);
	gmem_guest_expect(g, 8, PAGE_SIZE - 8, 0);
}

TEST_F(plain, prefault_makes_the_page_that_the_host_finds)
{
	struct gmem_vm *g = &self->g;
	long base;
	int err;

	gmem_host_fill(g->shared, HALF, 0x51);
	base = gmem_file_pages();
	err = __gmem_pre_fault(g->vcpu, GMEM_GPA, TEST_SIZE, 0, NULL);
	if (err == EOPNOTSUPP)
		SKIP(return, "no prefault with shadow paging");
	ASSERT_EQ(0, err);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_host_expect(g->shared, HALF, 0x51);
	gmem_host_expect(g->shared + HALF, HALF, 0);
	gmem_guest_expect(g, 0, HALF, 0x51);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
}

TEST_F(plain, mincore_shows_what_is_allocated)
{
	struct gmem_vm *g = &self->g;
	unsigned char vec[2] = { 1, 1 };

	ASSERT_EQ(0, mincore(g->shared, 2 * PAGE_SIZE, vec));
	EXPECT_EQ(0, vec[0] & 1);
	gmem_guest_fill(g, 0, 8, 1);
	ASSERT_EQ(0, mincore(g->shared, 2 * PAGE_SIZE, vec));
	EXPECT_EQ(1, vec[0] & 1);
	EXPECT_EQ(0, vec[1] & 1);
}

TEST_F(plain, hole_is_seen_by_both)
{
	struct gmem_vm *g = &self->g;
	void *second = gmem_map(g->fd, TEST_SIZE);
	long base = gmem_file_pages();
	int i;

	for (i = 0; i < 3; i++) {
		gmem_host_fill(second, TEST_SIZE, 0x60 + i);
		gmem_guest_expect(g, 0, TEST_SIZE, 0x60 + i);
		gmem_host_expect(g->shared, TEST_SIZE, 0x60 + i);
		EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));

		gmem_punch(g->fd, 0, HALF);
		EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
		/* A new page is one for all, whoever touches it first. */
		if (i % 2) {
			gmem_guest_expect(g, 0, HALF, 0);
			gmem_guest_fill(g, 0, HALF, 0x70 + i);
			gmem_host_expect(g->shared, HALF, 0x70 + i);
		} else {
			gmem_host_expect(g->shared, HALF, 0);
			gmem_host_fill(g->shared, HALF, 0x70 + i);
			gmem_guest_expect(g, 0, HALF, 0x70 + i);
		}
		gmem_host_expect(second, HALF, 0x70 + i);
		gmem_host_expect(second + HALF, HALF, 0x60 + i);
		gmem_guest_expect(g, HALF, HALF, 0x60 + i);
	}
	munmap(second, TEST_SIZE);
}

TEST_F(plain, past_the_end)
{
	struct gmem_vm *g = &self->g;
	void *mem = gmem_map(g->fd, TEST_SIZE + 2 * PAGE_SIZE);

	gmem_host_fill(mem, TEST_SIZE, 0x50);
	gmem_expect_sigbus(mem + TEST_SIZE, BUS_ADRERR);
	gmem_expect_sigbus(mem + TEST_SIZE + PAGE_SIZE, BUS_ADRERR);
	EXPECT_ERRNO(EFAULT, madvise(mem + TEST_SIZE, PAGE_SIZE,
				     MADV_POPULATE_WRITE));
	gmem_host_expect(mem, TEST_SIZE, 0x50);
	munmap(mem, TEST_SIZE + 2 * PAGE_SIZE);

	/* Far past it, where offsets look negative */
	mem = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd,
		   LLONG_MAX & ~(PAGE_SIZE - 1) & ~(SZ_1G - 1));
	if (mem != MAP_FAILED) {
		gmem_expect_sigbus(mem, BUS_ADRERR);
		munmap(mem, PAGE_SIZE);
	}
}

/*
 * The file's pages, always
 */

/* Each page has its number. */
static void guest_check_numbers(uint64_t gpa, uint64_t nr)
{
	uint64_t i;

	for (i = 0; i < nr; i++)
		GUEST_ASSERT_EQ(READ_ONCE(*(uint64_t *)(gpa + i * PAGE_SIZE)),
				0x1000 + i);
	for (i = 0; i < nr; i++)
		GUEST_ASSERT_EQ(READ_ONCE(*(uint64_t *)(gpa + i * PAGE_SIZE)),
				0x1000 + i);
	GUEST_UCALL_NONE();
}

/*
 * KVM maps neighbours of a page that a guest touches, and looks for them in other
 * ways than a fault does.  It finds them once the guest's own page tables have
 * them as accessed, and the host has them all in memory.
 */
TEST_F(plain, guest_never_sees_what_else_is_mapped)
{
	struct gmem_vm *g = &self->g;
	void *other = gmem_mmap(TEST_SIZE);
	int i;

	gmem_host_fill(other, TEST_SIZE, 0xbad);
	for (i = 0; i < NR_PAGES; i++)
		gmem_host_fill(g->shared + i * PAGE_SIZE, 8, 0x1000 + i);

	for (i = 0; i < 4; i++) {
		gmem_delete_slot(g->vm, GMEM_SLOT);
		gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
			      TEST_SIZE, other, g->fd, 0);
		ASSERT_EQ(0, __gmem_guest_run(g, guest_check_numbers, GMEM_GPA,
					      NR_PAGES, 0, 0));
		/* A change behind userspace_addr takes the pages away, if any. */
		ASSERT_EQ(0, madvise(other, TEST_SIZE, MADV_DONTNEED));
		gmem_host_fill(other, TEST_SIZE, 0xbad0 + i);
		ASSERT_EQ(0, __gmem_guest_run(g, guest_check_numbers, GMEM_GPA,
					      NR_PAGES, 0, 0));
	}
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(g->shared, TEST_SIZE, 0x51);
	gmem_host_expect(other, TEST_SIZE, 0xbad3);
	munmap(other, TEST_SIZE);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x51);
}

/* One that has just been punched must not come back as a neighbour. */
TEST_F(plain, neighbours_of_a_touched_page_are_the_files)
{
	struct gmem_vm *g = &self->g;
	int i;

	for (i = 0; i < 8; i++) {
		gmem_host_fill(g->shared, TEST_SIZE, 0x50 + i);
		gmem_guest_expect(g, 0, TEST_SIZE, 0x50 + i);
		gmem_punch(g->fd, i * PAGE_SIZE, PAGE_SIZE);
		gmem_guest_expect(g, (i + 1) * PAGE_SIZE, PAGE_SIZE, 0x50 + i);
		gmem_guest_expect(g, i * PAGE_SIZE, PAGE_SIZE, 0);
		gmem_guest_fill(g, i * PAGE_SIZE, PAGE_SIZE, 0x60 + i);
		gmem_host_expect(g->shared + i * PAGE_SIZE, PAGE_SIZE,
				 0x60 + i);
	}
}

TEST_F(plain, slot_needs_no_mapping)
{
	struct gmem_vm *g = &self->g;
	void *addr = gmem_mmap(TEST_SIZE);

	munmap(addr, TEST_SIZE);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
		      TEST_SIZE, addr, g->fd, 0);
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(g->shared, TEST_SIZE, 0x51);
}

/* Host addresses, guest addresses and the file's offsets are independent. */
TEST_F(plain, slots_and_mappings_in_any_order)
{
	struct gmem_vm *g = &self->g;
	const size_t page = PAGE_SIZE;
	int i;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	for (i = 0; i < 8; i++)
		gmem_set_slot(g->vm, GMEM_SLOT + i, KVM_MEM_GUEST_MEMFD,
			      GMEM_GPA + i * page, page,
			      g->shared + (7 - i) * page, g->fd,
			      (7 - i) * page);
	for (i = 0; i < 8; i++)
		gmem_guest_fill(g, i * page, page, 0x50 + i);
	for (i = 0; i < 8; i++)
		gmem_host_expect(g->shared + (7 - i) * page, page, 0x50 + i);
	gmem_punch(g->fd, 0, page);
	gmem_guest_expect(g, 7 * page, page, 0);
	gmem_guest_expect(g, 0, page, 0x50);
	for (i = 1; i < 8; i++)
		gmem_delete_slot(g->vm, GMEM_SLOT + i);
}

/*
 * What a mapping outlives
 */

TEST_F(plain, mapping_outlives_the_descriptor)
{
	struct gmem_vm *g = &self->g;

	gmem_vm_close_fd(g);
	gmem_guest_fill(g, 0, HALF, 0x51);
	gmem_host_expect(g->shared, HALF, 0x51);
	gmem_host_fill(g->shared + HALF, HALF, 0x52);
	gmem_guest_expect(g, HALF, HALF, 0x52);

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_host_expect(g->shared, HALF, 0x51);
	gmem_host_expect(g->shared + HALF, HALF, 0x52);
}

TEST_F(plain, mapping_outlives_the_vm)
{
	struct gmem_vm *g = &self->g;
	long refs;

	gmem_guest_fill(g, 0, HALF, 0x51);
	kvm_vm_free(g->vm);
	g->vm = NULL;
	EXPECT_EQ(self->usage.vms, gmem_count_vms());
	gmem_host_expect(g->shared, HALF, 0x51);
	gmem_host_expect(g->shared + HALF, HALF, 0);
	gmem_punch(g->fd, 0, PAGE_SIZE);
	gmem_host_expect(g->shared, PAGE_SIZE, 0);

	/* Nothing but the mapping is left now. */
	gmem_vm_close_fd(g);
	refs = gmem_count_module_refs();
	EXPECT_LT(self->usage.refcnt, refs);
	gmem_host_expect(g->shared + PAGE_SIZE, HALF - PAGE_SIZE, 0x51);
	gmem_host_fill(g->shared, TEST_SIZE, 0x52);
	gmem_host_expect(g->shared, TEST_SIZE, 0x52);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, NR_PAGES));
	munmap(g->shared, TEST_SIZE);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 0));
}

TEST_F(plain, memory_outlives_the_mapping)
{
	struct gmem_vm *g = &self->g;

	gmem_host_fill(g->shared, TEST_SIZE, 0x51);
	munmap(g->shared, TEST_SIZE);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x51);
	gmem_guest_fill(g, 0, HALF, 0x52);
	g->shared = gmem_map(g->fd, TEST_SIZE);
	gmem_host_expect(g->shared, HALF, 0x52);
	gmem_host_expect(g->shared + HALF, HALF, 0x51);
}

/*
 * Memory failure
 */

#define BAD (5 * PAGE_SIZE)

static void poison_mapped(struct gmem_vm *g)
{
	note_poisoned(mapped_pfn(g->shared + BAD));
	gmem_try_madvise(g->shared + BAD, PAGE_SIZE, MADV_HWPOISON);
}

TEST_F(plain, failed_page_is_reported_to_both)
{
	struct gmem_vm *g = &self->g;
	void *second = gmem_map(g->fd, TEST_SIZE);
	struct iovec local, remote;
	uint64_t val;
	int i;

	if (!can_poison())
		SKIP(return, "load hwpoison-inject, mount tracefs");

	gmem_guest_fill(g, 0, TEST_SIZE, 0x600d);
	gmem_host_expect(g->shared, TEST_SIZE, 0x600d);
	gmem_host_expect(second, BAD, 0x600d);
	poison_mapped(g);

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(EHWPOISON, __gmem_guest_read(g, BAD));
		gmem_expect_plain_fault(g, BAD);
		EXPECT_EQ(EHWPOISON, __gmem_guest_fill(g, BAD, 8, 1));
		/* Where it was mapped, and where it is touched only now */
		gmem_expect_sigbus(g->shared + BAD, BUS_MCEERR_AR);
		EXPECT_EQ(12, gmem_trap_info.si_addr_lsb);
		gmem_expect_sigbus(second + BAD, BUS_MCEERR_AR);
	}
	local = (struct iovec){ &val, sizeof(val) };
	remote = (struct iovec){ g->shared + BAD, sizeof(val) };
	EXPECT_EQ(-1, process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_ERRNO(EHWPOISON, madvise(second + BAD, PAGE_SIZE,
					MADV_POPULATE_READ));

	gmem_host_expect(g->shared, BAD, 0x600d);
	gmem_host_expect(g->shared + BAD + PAGE_SIZE, HALF, 0x600d);
	gmem_guest_expect(g, BAD + PAGE_SIZE, HALF, 0x600d);
	munmap(second, TEST_SIZE);
	gmem_vm_free(g);
	unpoison_all();
}

TEST_F(plain, hole_brings_a_good_page_for_both)
{
	struct gmem_vm *g = &self->g;

	if (!can_poison())
		SKIP(return, "load hwpoison-inject, mount tracefs");

	gmem_guest_fill(g, 0, TEST_SIZE, 0x600d);
	gmem_host_expect(g->shared, TEST_SIZE, 0x600d);
	poison_mapped(g);
	gmem_expect_sigbus(g->shared + BAD, BUS_MCEERR_AR);
	gmem_punch(g->fd, BAD, PAGE_SIZE);
	gmem_guest_expect(g, BAD, PAGE_SIZE, 0);

	/* A mapping remembers the failure until it is told to forget. */
	ASSERT_EQ(0, madvise(g->shared + BAD, PAGE_SIZE, MADV_DONTNEED));
	gmem_host_expect(g->shared + BAD, PAGE_SIZE, 0);
	gmem_host_fill(g->shared + BAD, PAGE_SIZE, 0x600d);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x600d);
	gmem_vm_free(g);
	unpoison_all();
}

/* A page that the host does not map, as in gmem_hwpoison_test */
TEST_F(plain, failed_page_that_only_the_guest_maps)
{
	struct gmem_vm *g = &self->g;

	if (!can_poison())
		SKIP(return, "load hwpoison-inject, mount tracefs");

	trace_start();
	poison(allocate_pfn(g->fd, BAD));
	trace_stop();
	EXPECT_EQ(EHWPOISON, __gmem_guest_read(g, BAD));
	gmem_expect_plain_fault(g, BAD);
	gmem_expect_sigbus(g->shared + BAD, BUS_MCEERR_AR);
	gmem_punch(g->fd, BAD, PAGE_SIZE);
	gmem_host_expect(g->shared, TEST_SIZE, 0);
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	gmem_vm_free(g);
	unpoison_all();
}

int main(int argc, char *argv[])
{
	gmem_require_mmap();
	return test_harness_run(argc, argv);
}
