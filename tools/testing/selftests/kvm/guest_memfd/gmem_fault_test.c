// SPDX-License-Identifier: GPL-2.0
/*
 * Faults on private memory: what KVM_EXIT_MEMORY_FAULT reports, which half of
 * the memory an access reaches, and that KVM_PRE_FAULT_MEMORY populates what it
 * is asked to and always comes back.
 */
#include "gmem_util.h"

#define TEST_SIZE SZ_4M
#define NR_PAGES  (TEST_SIZE / PAGE_SIZE)

FIXTURE(fault)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(fault)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(fault)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

TEST_F(fault, private_access_without_a_slot)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	EXPECT_EQ(EFAULT, __gmem_guest_read(g, 0));
	gmem_expect_memory_fault(g, 0);
	EXPECT_EQ(EFAULT, __gmem_guest_fill(g, 3 * PAGE_SIZE + 24, 8, 1));
	gmem_expect_memory_fault(g, 3 * PAGE_SIZE);
}

TEST_F(fault, private_access_to_an_ordinary_slot)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, 0, GMEM_GPA, g->size, g->shared, -1, 0);
	EXPECT_EQ(EFAULT, __gmem_guest_read(g, PAGE_SIZE));
	gmem_expect_memory_fault(g, PAGE_SIZE);

	vm_mem_set_shared(g->vm, GMEM_GPA, g->size);
	gmem_guest_expect(g, PAGE_SIZE, PAGE_SIZE, 0);
}

TEST_F(fault, guest_goes_on_when_the_cause_is_gone)
{
	struct gmem_vm *g = &self->g;

	gmem_guest_fill(g, 0, PAGE_SIZE, 0x1234);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	EXPECT_EQ(EFAULT, __gmem_guest_fill(g, 0, 8, 0x5678));
	gmem_expect_memory_fault(g, 0);

	/* The same instruction is executed again, on the same memory. */
	gmem_vm_bind(g);
	ASSERT_EQ(0, __gmem_guest_end(g));
	gmem_guest_expect(g, 0, 8, 0x5678);
	gmem_guest_expect(g, 8, PAGE_SIZE - 8, 0x1234);
}

/* The guest looks for a device where nothing is: shared, and no memslot. */
static void touch_nothing(struct gmem_vm *g, uint64_t offset)
{
	gmem_guest_start(g, gmem_guest_do_skip, GMEM_GPA + offset, 8, 0, 0);
	TEST_ASSERT_EQ(_vcpu_run(g->vcpu), 0);
	TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_MMIO);
	vcpu_run_complete_io(g->vcpu);
}

TEST_F(fault, private_memory_where_nothing_was)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	vm_mem_set_shared(g->vm, GMEM_GPA, g->size);
	touch_nothing(g, 0);
	touch_nothing(g, PAGE_SIZE);

	vm_mem_set_private(g->vm, GMEM_GPA, g->size);
	EXPECT_EQ(EFAULT, __gmem_guest_read(g, 0));
	gmem_expect_memory_fault(g, 0);

	/* Page 1 has not been touched since. */
	gmem_vm_bind(g);
	gmem_guest_fill(g, PAGE_SIZE, PAGE_SIZE, 0x1234);
	gmem_guest_expect(g, 0, PAGE_SIZE, 0);
	gmem_guest_expect(g, PAGE_SIZE, PAGE_SIZE, 0x1234);
}

TEST_F(fault, only_touched_pages_are_allocated)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();

	gmem_guest_fill(g, 0, TEST_SIZE / 2, 1);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_guest_fill(g, 0, TEST_SIZE / 2, 2);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_guest_expect(g, TEST_SIZE / 2, TEST_SIZE / 2, 0);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
}

TEST_F(fault, private_and_shared_are_two_memories)
{
	struct gmem_vm *g = &self->g;
	const uint64_t half = TEST_SIZE / 2;
	uint64_t *shared = g->shared;

	gmem_guest_fill(g, 0, TEST_SIZE, 0xaa);
	vm_mem_set_shared(g->vm, GMEM_GPA, half);
	gmem_guest_expect(g, 0, half, 0);
	gmem_guest_expect(g, half, half, 0xaa);

	gmem_guest_fill(g, 0, half, 0xbb);
	EXPECT_EQ(0xbb, shared[0]);
	EXPECT_EQ(0xbb, shared[half / 8 - 1]);
	EXPECT_EQ(0, shared[half / 8]);

	vm_mem_set_private(g->vm, GMEM_GPA, half);
	gmem_guest_expect(g, 0, TEST_SIZE, 0xaa);
	EXPECT_EQ(0xbb, shared[0]);
}

TEST_F(fault, offset_of_the_binding_is_obeyed)
{
	struct gmem_vm *g = &self->g;
	const uint64_t page = PAGE_SIZE;

	gmem_guest_fill(g, 0, page, 0x11);
	gmem_guest_fill(g, page, page, 0x22);
	gmem_guest_fill(g, 2 * page, page, 0x33);

	/* The same file, its pages 2, 1 and 0 in this order */
	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, page,
		      g->shared, g->fd, 2 * page);
	gmem_set_slot(g->vm, GMEM_SLOT + 1, KVM_MEM_GUEST_MEMFD,
		      GMEM_GPA + page, page, g->shared, g->fd, page);
	gmem_set_slot(g->vm, GMEM_SLOT + 2, KVM_MEM_GUEST_MEMFD,
		      GMEM_GPA + 2 * page, page, g->shared, g->fd, 0);
	gmem_guest_expect(g, 0, page, 0x33);
	gmem_guest_expect(g, page, page, 0x22);
	gmem_guest_expect(g, 2 * page, page, 0x11);
}

TEST_F(fault, pre_fault_checks_its_arguments)
{
	struct kvm_vcpu *vcpu = self->g.vcpu;
	const uint64_t page = PAGE_SIZE;

	EXPECT_EQ(EINVAL, __gmem_pre_fault(vcpu, GMEM_GPA, page, 1, NULL));
	EXPECT_EQ(EINVAL, __gmem_pre_fault(vcpu, GMEM_GPA, 0, 0, NULL));
	EXPECT_EQ(EINVAL, __gmem_pre_fault(vcpu, GMEM_GPA + 8, page, 0, NULL));
	EXPECT_EQ(EINVAL, __gmem_pre_fault(vcpu, GMEM_GPA, page + 8, 0, NULL));
	EXPECT_EQ(EINVAL, __gmem_pre_fault(vcpu, -page, 2 * page, 0, NULL));
}

TEST_F(fault, pre_fault_populates_the_range)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();
	uint64_t left;

	ASSERT_EQ(0, __gmem_pre_fault(g->vcpu, GMEM_GPA + PAGE_SIZE,
				      TEST_SIZE / 2, 0, &left));
	EXPECT_EQ(0, left);
	/* A part of each of both blocks */
	EXPECT_TRUE(gmem_pages_are(base, gmem_may_be_huge() ? NR_PAGES :
							      NR_PAGES / 2));
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	gmem_guest_fill(g, 0, TEST_SIZE, 0x77);

	ASSERT_EQ(0, __gmem_pre_fault(g->vcpu, GMEM_GPA, TEST_SIZE, 0, &left));
	EXPECT_EQ(0, left);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x77);
}

TEST_F(fault, pre_fault_reports_what_is_left)
{
	struct gmem_vm *g = &self->g;
	const uint64_t end = GMEM_GPA + TEST_SIZE;
	uint64_t left;

	/* Beyond the slot no memory is private, so none is there: ENOENT. */
	EXPECT_EQ(0, __gmem_pre_fault(g->vcpu, end - PAGE_SIZE, 3 * PAGE_SIZE,
				      0, &left));
	EXPECT_EQ(2 * PAGE_SIZE, left);
	EXPECT_EQ(ENOENT, __gmem_pre_fault(g->vcpu, end, PAGE_SIZE, 0, &left));
	EXPECT_EQ(PAGE_SIZE, left);
}

static bool stop;

static void *pre_fault_loop(void *arg)
{
	struct kvm_vcpu *vcpu = arg;
	int err;

	while (!READ_ONCE(stop)) {
		err = __gmem_pre_fault(vcpu, GMEM_GPA, TEST_SIZE, 0, NULL);
		TEST_ASSERT(!err || err == EAGAIN || err == EFAULT ||
			    err == ENOENT, "KVM_PRE_FAULT_MEMORY: %s",
			    strerror(err));
	}
	return NULL;
}

/*
 * A slot is deleted only when every user has left it: a pre-fault that retries
 * on a dying slot without leaving it waits for ever, and so does the deletion.
 */
TEST_F(fault, pre_fault_lets_a_slot_be_deleted)
{
	struct gmem_vm *g = &self->g;
	pthread_t thread = gmem_thread(pre_fault_loop, g->vcpu);
	uint64_t start = gmem_now_ms();
	int i;

	for (i = 0; gmem_race_goes_on(start, i, 50); i++) {
		gmem_delete_slot(g->vm, GMEM_SLOT);
		gmem_punch(g->fd, 0, TEST_SIZE);
		gmem_vm_bind(g);
		usleep(2000);
	}
	WRITE_ONCE(stop, true);
	pthread_join(thread, NULL);
	TH_LOG("%d rounds", i);
}

FIXTURE(obsolete_root)
{
	struct gmem_usage usage;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	void *mem;
};

/* Only in a default VM does deleting a slot make all page table roots obsolete. */
FIXTURE_SETUP(obsolete_root)
{
	gmem_usage_get(&self->usage);
	self->vm = vm_create_with_one_vcpu(&self->vcpu, NULL);
	self->mem = gmem_mmap(TEST_SIZE);
	gmem_set_slot(self->vm, GMEM_SLOT, 0, GMEM_GPA, TEST_SIZE, self->mem,
		      -1, 0);
}

FIXTURE_TEARDOWN(obsolete_root)
{
	kvm_vm_free(self->vm);
	munmap(self->mem, TEST_SIZE);
	gmem_usage_check(&self->usage);
}

/* Create and delete a slot beside the one that is pre-faulted. */
static void flash_other_slot(struct kvm_vm *vm, void *mem)
{
	gmem_set_slot(vm, GMEM_SLOT + 1, 0, 2 * GMEM_GPA, PAGE_SIZE, mem, -1, 0);
	gmem_delete_slot(vm, GMEM_SLOT + 1);
}

TEST_F(obsolete_root, pre_fault_after_another_slot_is_deleted)
{
	uint64_t left;

	ASSERT_EQ(0, __gmem_pre_fault(self->vcpu, GMEM_GPA, TEST_SIZE, 0, &left));
	flash_other_slot(self->vm, self->mem);
	ASSERT_EQ(0, __gmem_pre_fault(self->vcpu, GMEM_GPA, TEST_SIZE, 0, &left));
	EXPECT_EQ(0, left);
}

TEST_F(obsolete_root, pre_fault_while_other_slots_are_deleted)
{
	pthread_t thread = gmem_thread(pre_fault_loop, self->vcpu);
	uint64_t start = gmem_now_ms();
	int i;

	for (i = 0; gmem_race_goes_on(start, i, 100); i++)
		flash_other_slot(self->vm, self->mem);
	WRITE_ONCE(stop, true);
	pthread_join(thread, NULL);
	TH_LOG("%d rounds", i);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY));
	return test_harness_run(argc, argv);
}
