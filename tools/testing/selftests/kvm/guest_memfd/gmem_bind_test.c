// SPDX-License-Identifier: GPL-2.0
/*
 * Binding a guest_memfd to memory slots: which file ranges, descriptors, flags
 * and changes are accepted, that ranges never overlap, and that a refused
 * binding leaves nothing behind.
 */
#include "gmem_util.h"

#define NR_PAGES  128
#define FILE_SIZE (NR_PAGES * PAGE_SIZE)

FIXTURE(bind)
{
	struct gmem_usage usage;
	struct gmem_vm g;	/* without a vCPU */
};

FIXTURE_SETUP(bind)
{
	gmem_usage_get(&self->usage);
	self->g.vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	self->g.shared = gmem_mmap(FILE_SIZE);
	self->g.fd = vm_create_guest_memfd(self->g.vm, FILE_SIZE, 0);
}

FIXTURE_TEARDOWN(bind)
{
	close(self->g.fd);
	kvm_vm_free(self->g.vm);
	gmem_usage_check(&self->usage);
}

/* Bind @nr pages of the file from page @pgoff at page @gfn of the test area. */
static int __bind(struct gmem_vm *g, uint32_t slot, uint64_t gfn,
		  uint64_t pgoff, uint64_t nr)
{
	return __gmem_set_slot(g->vm, slot, KVM_MEM_GUEST_MEMFD,
			       GMEM_GPA + gfn * PAGE_SIZE, nr * PAGE_SIZE,
			       g->shared, g->fd, pgoff * PAGE_SIZE);
}

TEST_F(bind, range_must_lie_in_the_file)
{
	const uint64_t max = LLONG_MAX & ~(PAGE_SIZE - 1);
	const struct {
		uint64_t offset, size;
	} bad[] = {
		{ PAGE_SIZE, FILE_SIZE },
		{ FILE_SIZE, PAGE_SIZE },
		{ FILE_SIZE - PAGE_SIZE, 2 * PAGE_SIZE },
		{ 0, FILE_SIZE + PAGE_SIZE },
		{ max, PAGE_SIZE },
		{ max, FILE_SIZE },
		{ max + PAGE_SIZE, PAGE_SIZE },
		{ -PAGE_SIZE, PAGE_SIZE },
		{ -PAGE_SIZE, 2 * PAGE_SIZE },
		{ -FILE_SIZE, FILE_SIZE },
		{ 1, PAGE_SIZE },
		{ PAGE_SIZE / 2, PAGE_SIZE },
		{ 0, PAGE_SIZE / 2 },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(EINVAL,
			  __gmem_set_slot(self->g.vm, GMEM_SLOT,
					  KVM_MEM_GUEST_MEMFD, GMEM_GPA,
					  bad[i].size, self->g.shared, self->g.fd,
					  bad[i].offset))
			TH_LOG("offset 0x%lx, size 0x%lx", bad[i].offset,
			       bad[i].size);
	}
	EXPECT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, 0, NR_PAGES));
	gmem_delete_slot(self->g.vm, GMEM_SLOT);
	EXPECT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, NR_PAGES - 1, 1));
}

TEST_F(bind, descriptor_must_be_this_vms_guest_memfd)
{
	struct kvm_vm *other = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	const struct {
		int fd, err;
	} bad[] = {
		{ vm_create_guest_memfd(other, FILE_SIZE, 0), EINVAL },
		{ memfd_create("not a guest_memfd", 0), EINVAL },
		{ self->g.vm->fd, EINVAL },
		{ 1000, EBADF },
		{ -1, EBADF },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(bad[i].err,
			  __gmem_set_slot(self->g.vm, GMEM_SLOT,
					  KVM_MEM_GUEST_MEMFD, GMEM_GPA,
					  PAGE_SIZE, self->g.shared, bad[i].fd, 0))
			TH_LOG("descriptor %d of the list", i);
	}
	close(bad[0].fd);
	close(bad[1].fd);
	kvm_vm_free(other);
}

TEST_F(bind, flags_that_private_memory_cannot_have)
{
	const uint32_t bad[] = {
		KVM_MEM_READONLY, KVM_MEM_LOG_DIRTY_PAGES,
		KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES, BIT(3), BIT(31),
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(EINVAL, __gmem_set_slot(self->g.vm, GMEM_SLOT,
						  KVM_MEM_GUEST_MEMFD | bad[i],
						  GMEM_GPA, PAGE_SIZE, self->g.shared,
						  self->g.fd, 0))
			TH_LOG("flags 0x%x", bad[i]);
	}
}

/* The old ioctl's argument ends before the fields that it would need. */
TEST_F(bind, old_ioctl_knows_no_guest_memfd)
{
	struct kvm_userspace_memory_region *region;
	char *end = gmem_mmap(2 * PAGE_SIZE) + PAGE_SIZE;

	ASSERT_EQ(0, mprotect(end, PAGE_SIZE, PROT_NONE));
	region = (void *)(end - sizeof(*region));
	*region = (struct kvm_userspace_memory_region) {
		.slot = GMEM_SLOT,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = GMEM_GPA,
		.memory_size = PAGE_SIZE,
		.userspace_addr = (uintptr_t)self->g.shared,
	};
	EXPECT_ERRNO(EINVAL, __vm_ioctl(self->g.vm, KVM_SET_USER_MEMORY_REGION,
					region));
}

TEST_F(bind, file_ranges_do_not_overlap)
{
	static const struct {
		uint64_t pgoff, nr;
	} taken = { 3, 77 }, bad[] = {
		{ 3, 77 }, { 3, 1 }, { 79, 1 }, { 0, 4 }, { 79, 10 },
		{ 40, 2 }, { 0, NR_PAGES },
	};
	int i;

	ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, taken.pgoff, taken.nr));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(EEXIST, __bind(&self->g, GMEM_SLOT + 1, 1000, bad[i].pgoff,
					 bad[i].nr))
			TH_LOG("pages %lu + %lu", bad[i].pgoff, bad[i].nr);
	}

	/* The neighbours are free. */
	EXPECT_EQ(0, __bind(&self->g, GMEM_SLOT + 1, 1000, 0, 3));
	EXPECT_EQ(0, __bind(&self->g, GMEM_SLOT + 2, 2000, 80, NR_PAGES - 80));
}

TEST_F(bind, guest_ranges_do_not_overlap)
{
	int other = vm_create_guest_memfd(self->g.vm, FILE_SIZE, 0);

	ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT, 10, 0, 10));
	EXPECT_EQ(EEXIST, __bind(&self->g, GMEM_SLOT + 1, 10, 10, 10));
	EXPECT_EQ(EEXIST, __bind(&self->g, GMEM_SLOT + 1, 19, 10, 1));
	EXPECT_EQ(EEXIST, __bind(&self->g, GMEM_SLOT + 1, 0, 10, 11));
	EXPECT_EQ(EEXIST, __gmem_set_slot(self->g.vm, GMEM_SLOT + 1,
					  KVM_MEM_GUEST_MEMFD,
					  GMEM_GPA + 10 * PAGE_SIZE, PAGE_SIZE,
					  self->g.shared, other, 0));

	/* What was refused is not bound: both files take the ranges. */
	EXPECT_EQ(0, __bind(&self->g, GMEM_SLOT + 1, 20, 10, 10));
	EXPECT_EQ(0, __gmem_set_slot(self->g.vm, GMEM_SLOT + 2,
				     KVM_MEM_GUEST_MEMFD, GMEM_GPA, PAGE_SIZE,
				     self->g.shared, other, 0));
	close(other);
}

TEST_F(bind, slot_is_immutable)
{
	const uint64_t size = 10 * PAGE_SIZE;
	struct kvm_userspace_memory_region v1 = {
		.slot = GMEM_SLOT,
		.guest_phys_addr = GMEM_GPA,
		.memory_size = size,
		.userspace_addr = (uintptr_t)self->g.shared,
	};
	int other = vm_create_guest_memfd(self->g.vm, FILE_SIZE, 0);

	ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, 0, 10));

	/* Nothing changed, moved, resized, other offset, other file */
	EXPECT_EQ(EINVAL, __bind(&self->g, GMEM_SLOT, 0, 0, 10));
	EXPECT_EQ(EINVAL, __bind(&self->g, GMEM_SLOT, 100, 0, 10));
	EXPECT_EQ(EINVAL, __bind(&self->g, GMEM_SLOT, 0, 0, 20));
	EXPECT_EQ(EINVAL, __bind(&self->g, GMEM_SLOT, 0, 10, 10));
	EXPECT_EQ(EINVAL, __gmem_set_slot(self->g.vm, GMEM_SLOT,
					  KVM_MEM_GUEST_MEMFD, GMEM_GPA, size,
					  self->g.shared, other, 0));

	/* Flag cleared: in place, with dirty logging, moved; either ioctl */
	EXPECT_EQ(EINVAL, __gmem_set_slot(self->g.vm, GMEM_SLOT, 0, GMEM_GPA,
					  size, self->g.shared, -1, 0));
	EXPECT_EQ(EINVAL, __gmem_set_slot(self->g.vm, GMEM_SLOT,
					  KVM_MEM_LOG_DIRTY_PAGES, GMEM_GPA,
					  size, self->g.shared, -1, 0));
	EXPECT_EQ(EINVAL, __gmem_set_slot(self->g.vm, GMEM_SLOT, 0,
					  GMEM_GPA + SZ_1M, size, self->g.shared,
					  -1, 0));
	EXPECT_ERRNO(EINVAL, __vm_ioctl(self->g.vm, KVM_SET_USER_MEMORY_REGION,
					&v1));
	v1.flags = KVM_MEM_LOG_DIRTY_PAGES;
	EXPECT_ERRNO(EINVAL, __vm_ioctl(self->g.vm, KVM_SET_USER_MEMORY_REGION,
					&v1));

	gmem_delete_slot(self->g.vm, GMEM_SLOT);
	close(other);
}

TEST_F(bind, flag_cannot_be_added_to_a_slot)
{
	gmem_set_slot(self->g.vm, GMEM_SLOT, 0, GMEM_GPA, FILE_SIZE, self->g.shared,
		      -1, 0);
	EXPECT_EQ(EINVAL, __bind(&self->g, GMEM_SLOT, 0, 0, NR_PAGES));
	gmem_delete_slot(self->g.vm, GMEM_SLOT);
	EXPECT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, 0, NR_PAGES));
}

TEST_F(bind, range_is_free_again_after_delete)
{
	uint64_t pgoff, nr;

	/* Every alignment of both ends within one node of a radix tree */
	for (pgoff = 0; pgoff < 8; pgoff++) {
		for (nr = 1; nr < NR_PAGES - pgoff; nr += 7) {
			TEST_ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, pgoff, nr));
			gmem_delete_slot(self->g.vm, GMEM_SLOT);
			TEST_ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, 0, NR_PAGES));
			gmem_delete_slot(self->g.vm, GMEM_SLOT);
		}
	}
}

TEST_F(bind, many_adjacent_slots)
{
	uint64_t i;

	for (i = 0; i < NR_PAGES; i++)
		TEST_ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT + i, NR_PAGES - i, i, 1));
	for (i = 0; i < NR_PAGES; i += 2)
		gmem_delete_slot(self->g.vm, GMEM_SLOT + i);
	for (i = 1; i < NR_PAGES; i += 2)
		TEST_ASSERT_EQ(EEXIST, __bind(&self->g, 1000, 1000, i, 1));
	for (i = 0; i < NR_PAGES; i += 2)
		TEST_ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT + i, NR_PAGES - i, i, 1));
}

TEST_F(bind, capability_says_who_may_bind)
{
	struct kvm_vm *vm = vm_create_barebones();
	int fd = vm_create_guest_memfd(vm, FILE_SIZE, 0);
	bool can = vm_check_cap(vm, KVM_CAP_GUEST_MEMFD);

	EXPECT_LT(0, vm_check_cap(self->g.vm, KVM_CAP_GUEST_MEMFD));
	EXPECT_EQ(can ? 0 : EINVAL,
		  __gmem_set_slot(vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
				  FILE_SIZE, self->g.shared, fd, 0));
	close(fd);
	kvm_vm_free(vm);
}

static bool stop;

static void *punch_all(void *arg)
{
	int *fd = arg;

	while (!READ_ONCE(stop))
		gmem_punch(*fd, 0, FILE_SIZE);
	return NULL;
}

/*
 * A hole must not be punched through a slot that is half made or half gone:
 * slots come and go, whole and in pieces, under a stream of invalidations.
 */
TEST_F(bind, slots_come_and_go_under_punch_hole)
{
	pthread_t thread = gmem_thread(punch_all, &self->g.fd);
	uint64_t start = gmem_now_ms();
	int i, rounds;

	for (rounds = 0; gmem_race_goes_on(start, rounds, 20); rounds++) {
		TEST_ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT, 0, 3, 77));
		TEST_ASSERT_EQ(EEXIST, __bind(&self->g, GMEM_SLOT + 1, 5, 0, 3));
		TEST_ASSERT_EQ(0, __bind(&self->g, GMEM_SLOT + 1, 1000, 0, 3));
		for (i = 0; i < 2; i++)
			gmem_delete_slot(self->g.vm, GMEM_SLOT + i);
	}
	WRITE_ONCE(stop, true);
	pthread_join(thread, NULL);
	TH_LOG("%d rounds", rounds);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
