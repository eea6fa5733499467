// SPDX-License-Identifier: GPL-2.0
/*
 * When the hardware says no: a page that cannot be prepared is not mapped, one
 * that cannot be reclaimed is lost to everybody, and a VM that cannot be moved
 * stays where it is.  And the ownership model itself: it notices what it is for.
 */
#include "gmem_model_util.h"

#define NR	  600
#define TEST_SIZE (NR * PAGE_SIZE)
#define BAD	  (300 * PAGE_SIZE)	/* the page that fails */
#define WORD	  0x600d

FIXTURE(fail)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(fail)
{
	if (!gmem_has_fault_points())
		SKIP(return, "needs a kernel with fault injection");

	gmem_usage_get(&self->usage);
	gmem_model_begin();
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(fail)
{
	gmem_vm_free(&self->g);
	gmem_model_end();
	gmem_usage_check(&self->usage);
}

static uint64_t nr_mapped(struct gmem_vm *g)
{
	return vm_get_stat(g->vm, "pages_4k") + vm_get_stat(g->vm, "pages_2m");
}

/*
 * Prepare
 */

TEST_F(fail, page_that_cannot_be_prepared_is_not_mapped)
{
	struct gmem_vm *g = &self->g;
	uint64_t mapped;
	long pages;
	int i;

	/* Have mapped what the guest needs to get that far. */
	gmem_guest_fill(g, 0, PAGE_SIZE, WORD);
	mapped = nr_mapped(g);
	pages = gmem_file_pages();
	ASSERT_MODEL(1, .assigned = 1);

	gmem_fault_on("prepare", 0, -1);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(EPERM, __gmem_guest_read(g, BAD));
		gmem_expect_memory_fault(g, BAD);
		ASSERT_EQ(EPERM, __gmem_guest_fill(g, BAD, 8, 0xbad));
		gmem_expect_memory_fault(g, BAD);
	}
	EXPECT_EQ(mapped, nr_mapped(g));
	ASSERT_MODEL(1, .assigned = 1);

	/* The page is there, if not the guest's.  What is mapped stays so. */
	EXPECT_TRUE(gmem_pages_are(pages, 1));
	gmem_guest_expect(g, 0, PAGE_SIZE, WORD);
	gmem_fault_off("prepare");
	gmem_guest_expect(g, BAD, PAGE_SIZE, 0);
	EXPECT_TRUE(gmem_pages_are(pages, 1));
	ASSERT_MODEL(2, .assigned = 2);
}

/* The same instruction is executed again. */
TEST_F(fail, guest_goes_on_when_the_page_can_be_prepared)
{
	struct gmem_vm *g = &self->g;

	gmem_pollute_free_memory();
	gmem_fault_on("prepare", 0, 1);
	ASSERT_EQ(EPERM, __gmem_guest_skip(g, BAD, PAGE_SIZE, 0));
	gmem_expect_memory_fault(g, BAD);
	ASSERT_MODEL(0);
	ASSERT_EQ(0, __gmem_guest_end(g));
	sync_global_from_guest(g->vm, gmem_guest_skipped);
	EXPECT_EQ(PAGE_SIZE, gmem_guest_skipped);
	ASSERT_MODEL(1, .assigned = 1);
}

TEST_F(fail, prefault_fails_like_a_fault)
{
	struct gmem_vm *g = &self->g;
	uint64_t left;

	gmem_fault_on("prepare", 0, -1);
	EXPECT_EQ(EPERM, __gmem_pre_fault(g->vcpu, GMEM_GPA, 8 * PAGE_SIZE, 0,
					  &left));
	EXPECT_EQ(8 * PAGE_SIZE, left);
	ASSERT_MODEL(0);

	/* Some of the pages */
	gmem_fault_on("prepare", 5, -1);
	EXPECT_EQ(0, __gmem_pre_fault(g->vcpu, GMEM_GPA, 8 * PAGE_SIZE, 0,
				      &left));
	EXPECT_EQ(3 * PAGE_SIZE, left);
	ASSERT_MODEL(5, .assigned = 5);
	gmem_fault_off("prepare");
	gmem_prefault_pages(g, 0, NR);
	ASSERT_MODEL(NR, .assigned = NR);
}

TEST_F(fail, page_that_was_never_prepared_is_not_reclaimed)
{
	struct gmem_vm *g = &self->g;

	gmem_fault_on("prepare", 0, -1);
	EXPECT_EQ(EPERM, __gmem_guest_read(g, BAD));
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_MODEL(0);
	EXPECT_EQ(EPERM, __gmem_guest_read(g, BAD));
	gmem_vm_free(g);
	ASSERT_MODEL(0);
}

/* An heir that cannot have a page leaves it to whose it was. */
TEST_F(fail, page_that_cannot_be_inherited)
{
	struct gmem_vm *g = &self->g, heir;

	gmem_guest_fill(g, BAD, PAGE_SIZE, WORD);
	gmem_vm_create_linked(&heir, TEST_SIZE, g->fd, 0);
	vm_mem_set_private(heir.vm, GMEM_GPA, TEST_SIZE);
	gmem_vm_free(g);

	gmem_fault_on("prepare", 0, -1);
	EXPECT_EQ(EPERM, __gmem_guest_read(&heir, BAD));
	gmem_expect_memory_fault(&heir, BAD);
	ASSERT_MODEL(1, .assigned = 1);
	EXPECT_EQ(1, gmem_find_owner(true).pages);
	gmem_fault_off("prepare");
	gmem_guest_expect(&heir, BAD, PAGE_SIZE, WORD);
	ASSERT_MODEL(1, .assigned = 1, .inherited = 1);
	gmem_vm_free(&heir);
	ASSERT_MODEL(0, .assigned = 1, .inherited = 1, .reclaimed = 1,
		     .freed = 1);
}

/*
 * Reclaim
 */

/* Of @nr pages that were given back one is lost. */
static void expect_lost(long nr)
{
	ASSERT_MODEL(1, .assigned = nr, .reclaimed = nr - 1, .leaked = 1,
		     .freed = nr - 1);
	TEST_ASSERT_EQ(gmem_leaked_pages(), 1);
}

/* And stays so, when others use the memory. */
static void expect_leak(long nr)
{
	expect_lost(nr);
	gmem_pollute_free_memory();
	expect_lost(nr);
}

static void restore_leak(void)
{
	gmem_model_write("restore", "1");
	gmem_model_settle(0);
	TEST_ASSERT_EQ(gmem_leaked_pages(), 0);
}

TEST_F(fail, page_that_cannot_be_reclaimed_from_a_hole)
{
	struct gmem_vm *g = &self->g;
	long pages = gmem_file_pages();

	gmem_guest_fill(g, 0, TEST_SIZE, WORD);
	gmem_fault_on("reclaim", BAD / PAGE_SIZE, 1);
	gmem_punch(g->fd, 0, TEST_SIZE);
	expect_leak(NR);

	/* The hole is a hole. */
	EXPECT_TRUE(gmem_pages_are(pages, 0));
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	ASSERT_MODEL(NR + 1, .assigned = 2 * NR, .reclaimed = NR - 1,
		     .leaked = 1, .freed = NR - 1);
	gmem_guest_fill(g, 0, TEST_SIZE, WORD);
	gmem_punch(g->fd, 0, TEST_SIZE);

	/* Whose the page was it is, though the VM is gone. */
	gmem_vm_free(g);
	expect_leak(2 * NR);
	EXPECT_EQ(1, gmem_count_owners());
	EXPECT_EQ(1, gmem_find_owner(true).pages);
	restore_leak();
	EXPECT_EQ(0, gmem_count_owners());
}

TEST_F(fail, page_that_cannot_be_reclaimed_from_a_file)
{
	struct gmem_vm *g = &self->g;
	int number;

	gmem_guest_fill(g, 0, TEST_SIZE, WORD);
	number = gmem_find_owner(false).number;
	gmem_fault_on("reclaim", BAD / PAGE_SIZE, 1);
	gmem_vm_free(g);
	expect_leak(NR);
	EXPECT_EQ(number, gmem_find_owner(true).number);
	EXPECT_EQ(1, gmem_find_owner(true).pages);
	restore_leak();
}

TEST_F(fail, first_and_last_page_cannot_be_reclaimed)
{
	const long at[] = { 0, NR - 1 };
	struct gmem_vm *g = &self->g;
	int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		gmem_model_begin();
		gmem_prefault_pages(g, 0, NR);
		gmem_fault_on("reclaim", at[i], 1);
		gmem_punch(g->fd, 0, TEST_SIZE);
		expect_leak(NR);
		restore_leak();
	}
}

TEST_F(fail, no_page_can_be_reclaimed)
{
	struct gmem_vm *g = &self->g;

	gmem_prefault_pages(g, 0, NR);
	gmem_fault_on("reclaim", 0, -1);
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_fault_off("reclaim");
	ASSERT_MODEL(NR, .assigned = NR, .leaked = NR);
	EXPECT_EQ(NR, gmem_leaked_pages());
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	gmem_vm_free(g);
	ASSERT_MODEL(NR, .assigned = 2 * NR, .leaked = NR, .reclaimed = NR,
		     .freed = NR);
	EXPECT_EQ(NR, gmem_leaked_pages());
	EXPECT_EQ(NR, gmem_find_owner(true).pages);
	restore_leak();
}

/* A number that the hardware still knows is no other VM's. */
TEST_F(fail, number_of_a_leaked_page_is_taken)
{
	struct gmem_vm g, others[3];
	int i, fd, number;

	gmem_model_write("tied", "Y");
	gmem_vm_create(&g, TEST_SIZE);
	gmem_prefault_pages(&g, 0, NR);
	number = gmem_find_owner(false).number;
	gmem_fault_on("reclaim", BAD / PAGE_SIZE, 1);
	fd = gmem_vm_free_keep_fd(&g);
	expect_leak(NR);
	EXPECT_EQ(number, gmem_find_owner(true).number);

	for (i = 0; i < ARRAY_SIZE(others); i++) {
		gmem_vm_create(&others[i], TEST_SIZE);
		gmem_guest_fill(&others[i], 0, PAGE_SIZE, WORD);
		if (!i)
			EXPECT_NE(number, gmem_find_owner(false).number);
	}
	/* Four different ones, or gmem_find_owner() found two */
	EXPECT_EQ(1 + ARRAY_SIZE(others), gmem_count_owners());
	EXPECT_EQ(number, gmem_find_owner(true).number);
	for (i = 0; i < ARRAY_SIZE(others); i++)
		gmem_vm_free(&others[i]);

	/* The file is whole: its pages are just gone. */
	gmem_allocate(fd, 0, TEST_SIZE);
	gmem_punch(fd, 0, TEST_SIZE);
	close(fd);
	restore_leak();
}

/*
 * Move
 */

TEST_F(fail, move_that_fails_changes_nothing)
{
	struct gmem_vm *g = &self->g, dst;
	struct gmem_owner before, after;
	int i;

	gmem_guest_fill(g, 0, TEST_SIZE, WORD);
	before = gmem_find_owner(false);
	gmem_vm_create_linked(&dst, TEST_SIZE, g->fd, 0);

	gmem_fault_on("move", 0, -1);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(EIO, __gmem_move(dst.vm, g->vm->fd));
		EXPECT_FALSE(gmem_vm_is_dead(g->vm));
		EXPECT_FALSE(gmem_vm_is_dead(dst.vm));

		/* The source has its memory and its attributes. */
		gmem_guest_expect(g, 0, TEST_SIZE, WORD + i);
		gmem_guest_fill(g, 0, TEST_SIZE, WORD + i + 1);
		gmem_punch(g->fd, BAD, PAGE_SIZE);
		gmem_guest_expect(g, BAD, PAGE_SIZE, 0);
		gmem_guest_fill(g, BAD, PAGE_SIZE, WORD + i + 1);

		/* The destination has neither. */
		EXPECT_EQ(EPERM, __gmem_allocate(dst.fd, 0, PAGE_SIZE));
		gmem_guest_expect(&dst, 0, PAGE_SIZE, 0);
		vm_mem_set_private(dst.vm, GMEM_GPA, PAGE_SIZE);
		gmem_expect_no_access(&dst, 0);
		vm_mem_set_shared(dst.vm, GMEM_GPA, PAGE_SIZE);
		EXPECT_EQ(1, gmem_count_owners());
		ASSERT_MODEL(NR, .assigned = NR + i + 1, .reclaimed = i + 1,
			     .freed = i + 1);
	}
	after = gmem_find_owner(false);
	EXPECT_EQ(before.number, after.number);

	gmem_fault_off("move");
	gmem_move(dst.vm, g->vm);
	gmem_guest_expect(&dst, 0, TEST_SIZE, WORD + 2);
	after = gmem_find_owner(false);
	EXPECT_EQ(before.number, after.number);
	ASSERT_MODEL(NR, .assigned = NR + 2, .reclaimed = 2, .freed = 2,
		     .moved = 1);
	gmem_vm_free(&dst);
}

/*
 * The model itself
 */

static const char * const violations[] = {
	"unprepared", "second-owner", "wrong-gfn", "free-assigned",
	"owner-reused", "moved-owner", "not-assigned", "mapped",
};

FIXTURE(model)
{
};

FIXTURE_SETUP(model)
{
	gmem_model_begin();
}

FIXTURE_TEARDOWN(model)
{
	gmem_model_write("delay", "\n");
	gmem_model_write("violations", "0");
	gmem_model_end();
}

TEST_F(model, notices_each_violation)
{
	int i, j;

	for (i = 0; i < ARRAY_SIZE(violations); i++) {
		EXPECT_EQ(0, __gmem_model_write("provoke", violations[i]))
			TH_LOG("%s is not noticed", violations[i]);
		for (j = 0; j < ARRAY_SIZE(violations); j++) {
			EXPECT_EQ(i == j, gmem_violations(violations[j]))
				TH_LOG("%s is provoked, %s is counted",
				       violations[i], violations[j]);
		}
		EXPECT_EQ(1, gmem_violations("all"));
		gmem_model_write("violations", "0");
		EXPECT_EQ(0, gmem_violations("all"));

		/* What that took is not left behind. */
		gmem_model_settle(0);
		EXPECT_EQ(0, gmem_count_owners())
			TH_LOG("%s leaves an owner", violations[i]);
	}
}

TEST_F(model, counts_violations)
{
	int i;

	for (i = 1; i <= 3; i++) {
		gmem_model_write("provoke", "second-owner");
		EXPECT_EQ(i, gmem_violations("second-owner"));
	}
	gmem_model_write("provoke", "wrong-gfn");
	EXPECT_EQ(3, gmem_violations("second-owner"));
	EXPECT_EQ(4, gmem_violations("all"));
}

TEST_F(model, knows_no_other_violation)
{
	EXPECT_EQ(EINVAL, __gmem_model_write("provoke", "no-such-thing"));
	EXPECT_EQ(EINVAL, __gmem_model_write("provoke", "second"));
	EXPECT_EQ(EINVAL, __gmem_model_write("provoke", "second-owner-"));
	EXPECT_EQ(0, gmem_violations("all"));
}

TEST_F(model, is_empty_and_can_be_reset)
{
	struct gmem_vm g;

	ASSERT_MODEL(0);
	gmem_vm_create(&g, TEST_SIZE);
	gmem_prefault_pages(&g, 0, NR);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_model_write("transitions", "0");
	ASSERT_MODEL(NR);
	gmem_vm_free(&g);
	ASSERT_MODEL(0, .reclaimed = NR, .freed = NR);
	gmem_model_write("transitions", "0");
	ASSERT_MODEL(0);
}

#define NR_CALLS 50

/* A delay is half as long as its limit on average. */
TEST_F(model, delays_functions)
{
	struct gmem_vm g;
	uint64_t quick, slow;
	int i;

	gmem_vm_create(&g, TEST_SIZE);
	quick = gmem_now_us();
	for (i = 0; i < NR_CALLS; i++)
		gmem_punch(g.fd, 0, TEST_SIZE);
	quick = gmem_now_us() - quick;

	gmem_model_write("delay", "kvm_gmem_punch_hole 10000");
	slow = gmem_now_us();
	for (i = 0; i < NR_CALLS; i++)
		gmem_punch(g.fd, 0, TEST_SIZE);
	slow = gmem_now_us() - slow;
	EXPECT_EQ(NR_CALLS, gmem_read_long(GMEM_MODEL "delay",
					   "kvm_gmem_punch_hole 10000 "));
	EXPECT_LT(quick + NR_CALLS * 2500, slow);

	EXPECT_EQ(EEXIST, __gmem_model_write("delay", "kvm_gmem_punch_hole 1"));
	EXPECT_EQ(ENOENT, __gmem_model_write("delay", "no_such_function 1"));
	EXPECT_EQ(EINVAL, __gmem_model_write("delay", "kvm_gmem_fallocate"));
	EXPECT_EQ(EINVAL, __gmem_model_write("delay", "kvm_gmem_fallocate 0"));
	EXPECT_EQ(EINVAL, __gmem_model_write("delay", "kvm_gmem_fallocate 10001"));
	EXPECT_EQ(EINVAL, __gmem_model_write("delay", "kvm_gmem_fallocate 1 1"));

	/* Gone, it can be made anew. */
	gmem_model_write("delay", "\n");
	gmem_model_write("delay", "kvm_gmem_punch_hole 1");
	gmem_vm_free(&g);
}

int main(int argc, char *argv[])
{
	gmem_require_model();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM));
	return test_harness_run(argc, argv);
}
