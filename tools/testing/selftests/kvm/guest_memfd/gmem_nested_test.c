// SPDX-License-Identifier: GPL-2.0
/*
 * A guest with a guest of its own: KVM then maps private memory through shadow
 * page tables, too, and finds those mappings by the memory slots' reverse maps.
 * Whatever takes memory away must take it from both.
 */
#include "gmem_link_util.h"
#include "svm_util.h"

#define TEST_SIZE SZ_2M

FIXTURE(nested)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

static uint64_t seen;
static uint64_t *word = (void *)GMEM_GPA;

/* Count the runs in a word of the test memory, the first one at first. */
static void l2_guest_code(void)
{
	seen = READ_ONCE(*word);
	WRITE_ONCE(*word, seen + 1);
	vmmcall();
}

static void l2_idle_code(void)
{
	vmmcall();
}

/* Run a nested guest until it exits, and return why it did. */
static uint64_t run_l2(struct svm_test_data *svm, void *code, uint64_t nested_cr3)
{
	static uint64_t l2_stack[64];
	struct vmcb *vmcb = svm->vmcb;

	generic_svm_setup(svm, code, &l2_stack[ARRAY_SIZE(l2_stack) - 1]);
	vmcb->control.nested_ctl = SVM_NESTED_CTL_NP_ENABLE;
	vmcb->control.nested_cr3 = nested_cr3;
	run_guest(vmcb, svm->vmcb_gpa);
	return vmcb->control.exit_code;
}

static void l1_guest_code(struct svm_test_data *svm, uint64_t nested_cr3)
{
	for (;;) {
		GUEST_ASSERT_EQ(run_l2(svm, l2_guest_code, nested_cr3),
				SVM_EXIT_VMMCALL);
		GUEST_SYNC1(seen);
	}
}

/* Use test memory as an empty page table, and write to it afterwards. */
static void l1_writes_to_table(struct svm_test_data *svm)
{
	int i;

	for (i = 1; ; i++) {
		WRITE_ONCE(*word, 0);
		GUEST_ASSERT_EQ(run_l2(svm, l2_guest_code, GMEM_GPA),
				SVM_EXIT_NPF);
		WRITE_ONCE(*word, i);
		GUEST_SYNC1(READ_ONCE(*word));
	}
}

/* Use test memory as a page table, and then as memory of the nested guest. */
static void l1_reuses_table(struct svm_test_data *svm, uint64_t nested_cr3)
{
	GUEST_ASSERT_EQ(run_l2(svm, l2_idle_code, GMEM_GPA), SVM_EXIT_VMMCALL);
	GUEST_SYNC1(0);
	GUEST_ASSERT_EQ(run_l2(svm, l2_guest_code, nested_cr3),
			SVM_EXIT_VMMCALL);
	GUEST_SYNC1(READ_ONCE(*word));
}

static void start_nested(struct gmem_vm *g)
{
	vm_vaddr_t svm;

	vcpu_alloc_svm(g->vm, &svm);
	vcpu_arch_set_entry_point(g->vcpu, l1_guest_code);
	vcpu_args_set(g->vcpu, 2, svm, gmem_create_identity_map(g->vm));
}

FIXTURE_SETUP(nested)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
	start_nested(&self->g);
}

FIXTURE_TEARDOWN(nested)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

/* Run the nested guest once and tell what it saw. */
static uint64_t run_nested(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_SYNC);
	return uc.args[0];
}

TEST_F(nested, hole_reads_as_zero)
{
	struct gmem_vm *g = &self->g;
	int i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, run_nested(g->vcpu));
		EXPECT_EQ(1, run_nested(g->vcpu));
		EXPECT_EQ(2, run_nested(g->vcpu));
		gmem_punch(g->fd, 0, TEST_SIZE);
	}
}

TEST_F(nested, conversion_is_seen)
{
	struct gmem_vm *g = &self->g;
	uint64_t *shared = g->shared;

	*shared = 100;
	EXPECT_EQ(0, run_nested(g->vcpu));
	vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE);
	EXPECT_EQ(100, run_nested(g->vcpu));
	EXPECT_EQ(101, *shared);
	vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
	EXPECT_EQ(1, run_nested(g->vcpu));
	EXPECT_EQ(101, *shared);
}

/*
 * KVM maps what lies beside a page as well, if it finds that at userspace_addr.
 * Private memory is not there, but the VMM may have something else there.
 */
TEST_F(nested, neighbours_are_not_mapped_from_the_other_half)
{
	struct gmem_vm *g = &self->g;
	uint64_t *shared = g->shared, *next = shared + PAGE_SIZE / 8;

	*shared = 100;
	*next = 200;
	vm_mem_set_shared(g->vm, GMEM_GPA, PAGE_SIZE);
	EXPECT_EQ(100, run_nested(g->vcpu));

	word = (void *)(GMEM_GPA + PAGE_SIZE);
	sync_global_to_guest(g->vm, word);
	EXPECT_EQ(0, run_nested(g->vcpu));
	EXPECT_EQ(1, run_nested(g->vcpu));
	EXPECT_EQ(101, *shared);
	EXPECT_EQ(200, *next);
}

/*
 * KVM wants to see each write to a page table of a nested guest, and does it
 * itself.  It must not in private memory, to which it has no access.  Nor may it
 * give up if the same instruction writes again.
 */
TEST_F(nested, writes_to_a_page_table_stay_private)
{
	struct gmem_vm *g = &self->g;
	vm_vaddr_t svm;
	int i;

	vcpu_alloc_svm(g->vm, &svm);
	vcpu_arch_set_entry_point(g->vcpu, l1_writes_to_table);
	vcpu_args_set(g->vcpu, 1, svm);
	for (i = 1; i < 5; i++)
		EXPECT_EQ(i, run_nested(g->vcpu));
	EXPECT_EQ(0, *(uint64_t *)g->shared);
}

/* What was a page table is tracked until somebody writes to it. */
TEST_F(nested, page_table_becomes_private_memory)
{
	struct gmem_vm *g = &self->g;
	uint64_t *shared = g->shared;
	vm_vaddr_t svm;
	vm_paddr_t map;
	uint64_t first;

	map = gmem_create_identity_map(g->vm);
	vcpu_alloc_svm(g->vm, &svm);
	vcpu_arch_set_entry_point(g->vcpu, l1_reuses_table);
	vcpu_args_set(g->vcpu, 2, svm, map);

	vm_mem_set_shared(g->vm, GMEM_GPA, PAGE_SIZE);
	memcpy(shared, addr_gpa2hva(g->vm, map), PAGE_SIZE);
	EXPECT_EQ(0, run_nested(g->vcpu));
	first = *shared;
	vm_mem_set_private(g->vm, GMEM_GPA, PAGE_SIZE);
	EXPECT_EQ(1, run_nested(g->vcpu));
	EXPECT_EQ(first, *shared);
}

/* Shadow pages, too, are left to the work item, and are gone after it. */
TEST_F(nested, memory_moves)
{
	struct gmem_vm *src = &self->g, dst;
	uint64_t end;

	EXPECT_EQ(0, run_nested(src->vcpu));
	EXPECT_EQ(1, run_nested(src->vcpu));
	EXPECT_LT(0, vm_get_stat(src->vm, "pages_4k"));

	gmem_vm_create_linked(&dst, TEST_SIZE, src->fd, 0);
	start_nested(&dst);
	gmem_move(dst.vm, src->vm);
	EXPECT_EQ(2, run_nested(dst.vcpu));

	end = gmem_now_ms() + 10000;
	while (vm_get_stat(src->vm, "pages_4k") && gmem_now_ms() < end)
		usleep(1000);
	EXPECT_EQ(0, vm_get_stat(src->vm, "pages_4k"));
	EXPECT_EQ(3, run_nested(dst.vcpu));
	gmem_vm_free(&dst);
}

static bool stop;

/* Not from the start: KVM takes a null first entry for the end of the map. */
static void *punch_most(void *arg)
{
	int *fd = arg;

	while (!READ_ONCE(stop))
		gmem_punch(*fd, PAGE_SIZE, SZ_1G - PAGE_SIZE);
	return NULL;
}

/*
 * A large slot takes time to get its reverse maps.  A hole that is punched in
 * the meantime must not look for mappings there.
 */
TEST_F(nested, slots_come_and_go_under_punch_hole)
{
	struct gmem_vm *g = &self->g;
	uint64_t end = gmem_now_ms() + 5000;
	void *mem = gmem_mmap(SZ_1G);
	pthread_t thread;
	int i, fd;

	/* From here on all slots have reverse maps. */
	run_nested(g->vcpu);

	fd = vm_create_guest_memfd(g->vm, SZ_1G, 0);
	thread = gmem_thread(punch_most, &fd);
	/* KVM lets go of its lock for each page that the other one waits for. */
	for (i = 0; i < 100 && gmem_now_ms() < end; i++) {
		gmem_set_slot(g->vm, GMEM_SLOT + 1, KVM_MEM_GUEST_MEMFD,
			      2 * GMEM_GPA, SZ_1G, mem, fd, 0);
		gmem_delete_slot(g->vm, GMEM_SLOT + 1);
	}
	WRITE_ONCE(stop, true);
	pthread_join(thread, NULL);
	close(fd);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SVM));
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_GBPAGES));
	return test_harness_run(argc, argv);
}
