// SPDX-License-Identifier: GPL-2.0
/*
 * Error paths of huge folios: as in gmem_fail_nth_test.c, whatever can fail in an
 * operation does.  Where a huge folio cannot be had small ones must do, and what
 * takes a part of one may not touch the rest.
 */
#include "gmem_fail_util.h"

#define BLOCK	   SZ_2M
#define PER_BLOCK  ((long)(BLOCK / PAGE_SIZE))
#define OTHER_SIZE (2 * BLOCK)
#define NR_OTHER   (2 * PER_BLOCK)

/* A part of the first block and of the second one, in pages */
#define PART	 (PER_BLOCK - 5)
#define NR_PART	 40
#define PART_END (PART + NR_PART)

FIXTURE(huge)
{
	struct subject s;
};

FIXTURE_SETUP(huge)
{
	struct subject *s = &self->s;

	subject_begin(s);
	gmem_vm_create(&s->g, TEST_SIZE);
	s->vm = s->g.vm;
	gmem_write_pages(&s->g, 0, FREE);
	s->pages = FREE;
}

FIXTURE_TEARDOWN(huge)
{
	subject_end(&self->s);
}

/* The other VM is that of the huge folios, and new in each round. */
static void create_vm(struct subject *s)
{
	gmem_vm_create(&s->other, OTHER_SIZE);
	/* What the guest needs to come to its memory is mapped. */
	gmem_guest_fill(&s->other, 0, 0, 0);
}

static void create_full_vm(struct subject *s)
{
	create_vm(s);
	gmem_write_pages(&s->other, 0, NR_OTHER);
	gmem_model_settle(s->pages + NR_OTHER);
	s->extra = NR_OTHER;
	s->before = gmem_file_pages();
}

static void free_vm(struct subject *s)
{
	gmem_vm_free(&s->other);
	s->extra = 0;
}

/* The guest has one page of the other VM, or a block of them: whether that. */
static bool has_block(struct subject *s)
{
	s->extra = gmem_model_pages() - s->pages;
	TEST_ASSERT(s->extra == 1 || s->extra == PER_BLOCK,
		    "the guest has %ld pages", s->extra);
	return s->extra == PER_BLOCK;
}

/*
 * What does the guest find in the part, and what beside it: nothing?  It looks at
 * the neighbours and at both ends: small pages are slow to fault in.
 */
#define NR_NEAR 4

static void expect_pages(struct subject *s, bool part_zero, bool rest_zero)
{
	gmem_check_pages(&s->other, 0, NR_NEAR, rest_zero);
	gmem_check_pages(&s->other, PART - NR_NEAR, NR_NEAR, rest_zero);
	gmem_check_pages(&s->other, PART, NR_PART, part_zero);
	gmem_check_pages(&s->other, PART_END, NR_NEAR, rest_zero);
	gmem_check_pages(&s->other, NR_OTHER - NR_NEAR, NR_NEAR, rest_zero);
}

/* The memory can be used, whatever it consists of. */
static void use_part(struct subject *s)
{
	gmem_write_pages(&s->other, PART, NR_PART);
	gmem_check_pages(&s->other, PART, NR_PART, false);
	s->extra = gmem_model_pages() - s->pages;
}

/*
 * To have memory
 */

/* How often there was a block, and how often not: of the test that runs */
static int nr_blocks, nr_small;

static void count_and_use(struct subject *s, int err)
{
	/* A page that was denied is nobody's, or was prepared with others. */
	if (err) {
		s->extra = gmem_model_pages() - s->pages;
		return;
	}

	if (has_block(s))
		nr_blocks++;
	else
		nr_small++;
	use_part(s);
}

static int pre_fault_page(struct subject *s)
{
	return __gmem_pre_fault(s->other.vcpu, GMEM_GPA, PAGE_SIZE, 0, NULL);
}

static int touch_page(struct subject *s)
{
	return __vcpu_run(s->other.vcpu) ? errno : 0;
}

static void create_vm_that_reads(struct subject *s)
{
	create_vm(s);
	gmem_guest_start(&s->other, gmem_guest_do_skip, GMEM_GPA, PAGE_SIZE, 0,
			 0);
}

static void check_touched(struct subject *s, int err)
{
	if (!err)
		vcpu_run_complete_io(s->other.vcpu);
	count_and_use(s, err);
}

/* Memory is short in some rounds, and plentiful when nothing fails any more. */
static void sweep_access(struct subject *s, void (*set_up)(struct subject *s),
			 int (*run)(struct subject *s),
			 void (*check)(struct subject *s, int err),
			 struct __test_metadata *_metadata)
{
	nr_blocks = 0;
	nr_small = 0;
	SWEEP(s, .set_up = set_up, .run = run, .check = check,
	      .clean_up = free_vm, .other_err = EPERM, .min = 1);
	TH_LOG("%d times a block, %d times a page", nr_blocks, nr_small);
	EXPECT_LT(0, nr_small);
	EXPECT_LT(0, nr_blocks);
}

TEST_F(huge, touch)
{
	sweep_access(&self->s, create_vm_that_reads, touch_page, check_touched,
		     _metadata);
}

TEST_F(huge, pre_fault)
{
	sweep_access(&self->s, create_vm, pre_fault_page, count_and_use,
		     _metadata);
}

static int allocate(struct subject *s)
{
	return __gmem_allocate(s->other.fd, 0, OTHER_SIZE);
}

static void check_allocated(struct subject *s, int err)
{
	expect_pages(s, true, true);
	use_part(s);
	gmem_punch(s->other.fd, 0, OTHER_SIZE);
	s->extra = 0;
}

TEST_F(huge, allocate)
{
	SWEEP(&self->s, .set_up = create_vm, .run = allocate,
	      .check = check_allocated, .clean_up = free_vm, .min = 1);
}

/*
 * To take a part away
 */

static int punch_part(struct subject *s)
{
	return __gmem_punch(s->other.fd, PART * PAGE_SIZE, NR_PART * PAGE_SIZE);
}

static void check_punched(struct subject *s, int err)
{
	TEST_ASSERT(gmem_pages_are(s->before, -NR_PART), "not freed");
	expect_pages(s, true, false);
	use_part(s);
}

TEST_F(huge, punch_a_part)
{
	SWEEP(&self->s, .set_up = create_full_vm, .run = punch_part,
	      .check = check_punched, .clean_up = free_vm, .never = true);
}

static int share_part(struct subject *s)
{
	return __gmem_set_attributes(s->other.vm, GMEM_GPA + PART * PAGE_SIZE,
				     NR_PART * PAGE_SIZE, 0, 0);
}

static void check_shared(struct subject *s, int err)
{
	expect_pages(s, !err, false);
}

TEST_F(huge, share_a_part)
{
	SWEEP(&self->s, .set_up = create_full_vm, .run = share_part,
	      .check = check_shared, .clean_up = free_vm, .min = 1);
}

/* The guest has the memory in huge folios, and not touched it yet. */
static void create_allocated_vm(struct subject *s)
{
	create_vm(s);
	gmem_allocate(s->other.fd, 0, OTHER_SIZE);
}

/* The last page of the first block, and the first one of the second */
static int populate_two(struct subject *s)
{
	return __gmem_populate(&s->other, BLOCK - PAGE_SIZE, 2, s->mem, -1);
}

static void check_populated(struct subject *s, int err)
{
	gmem_check_pages(&s->other, PART, PER_BLOCK - 1 - PART, true);
	if (!err)
		gmem_check_pages(&s->other, PER_BLOCK - 1, 2, false);
	gmem_check_pages(&s->other, PER_BLOCK + 1, NR_NEAR, true);
	use_part(s);
	gmem_punch(s->other.fd, 0, OTHER_SIZE);
	s->extra = 0;
}

TEST_F(huge, populate_pages_of_two)
{
	void *source = gmem_create_source(PER_BLOCK + 1);

	self->s.mem = source + BLOCK - PAGE_SIZE;
	SWEEP(&self->s, .set_up = create_allocated_vm, .run = populate_two,
	      .check = check_populated, .clean_up = free_vm, .min = 1);
	munmap(source, BLOCK + PAGE_SIZE);
}

/*
 * To lose it all
 */

static void create_vm_without_slot(struct subject *s)
{
	create_full_vm(s);
	punch_part(s);
	gmem_write_pages(&s->other, PART, NR_PART);
	gmem_delete_slot(s->other.vm, GMEM_SLOT);
	gmem_model_settle(s->pages + NR_OTHER);
	s->extra = 0;
}

static int close_last(struct subject *s)
{
	int fd = s->other.fd;

	s->other.fd = -1;
	return close(fd) ? errno : 0;
}

TEST_F(huge, close)
{
	SWEEP(&self->s, .set_up = create_vm_without_slot, .run = close_last,
	      .clean_up = free_vm, .never = true);
}

/*
 * Where attributes differ the guest has one page of a block.  If that is not given
 * back then all of the block is lost.
 */
TEST_F(huge, page_that_cannot_be_reclaimed)
{
	struct subject *s = &self->s;

	create_vm(s);
	s->before = gmem_file_pages();
	gmem_allocate(s->other.fd, 0, OTHER_SIZE);
	share_part(s);
	gmem_write_pages(&s->other, 0, 1);
	gmem_model_settle(s->pages + 1);

	gmem_fault_on("reclaim", 0, 1);
	gmem_punch(s->other.fd, 0, OTHER_SIZE);
	gmem_fault_off("reclaim");
	EXPECT_TRUE(gmem_pages_are(s->before, 0));
	EXPECT_EQ(PER_BLOCK, gmem_leaked_pages());
	gmem_model_settle(s->pages + 1);

	/* It is the guest's memory that is lost, not its place. */
	gmem_check_pages(&s->other, 0, 1, true);
	free_vm(s);
	EXPECT_EQ(PER_BLOCK, gmem_leaked_pages());
	gmem_model_write("restore", "1");
	EXPECT_EQ(0, gmem_leaked_pages());
	gmem_model_settle(s->pages);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	gmem_require_model();
	TEST_REQUIRE(gmem_may_be_huge());
	__TEST_REQUIRE(gmem_has_fault_points(),
		       "needs a kernel with fault injection");
	return test_harness_run(argc, argv);
}
