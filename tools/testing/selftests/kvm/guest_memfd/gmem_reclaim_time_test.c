// SPDX-License-Identifier: GPL-2.0
/*
 * The time that it takes to give a guest's memory back, per page: when holes
 * are punched, and when the last reference to the memory goes.  To compare (see
 * vm/bench-reclaim.sh): the unmodified modules run it, too.
 */
#include "gmem_util.h"

#define NR_PAGES 8192
#define SIZE	 (NR_PAGES * PAGE_SIZE)

/* The quickest counts: others met with something else, or with scattered pages. */
#define ROUNDS	 10

FIXTURE(time)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_VARIANT(time)
{
	void (*use)(struct gmem_vm *g);
};

static void prefault(struct gmem_vm *g)
{
	uint64_t left = SIZE;

	while (left) {
		TEST_ASSERT_EQ(__gmem_pre_fault(g->vcpu, GMEM_GPA + SIZE - left,
						left, 0, &left), 0);
	}
}

static void write_all(struct gmem_vm *g)
{
	gmem_guest_fill(g, 0, SIZE, 1);
}

FIXTURE_VARIANT_ADD(time, prefaulted)
{
	.use = prefault,
};

FIXTURE_VARIANT_ADD(time, written)
{
	.use = write_all,
};

FIXTURE_SETUP(time)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, SIZE);
}

FIXTURE_TEARDOWN(time)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

/* All memory is bound and mapped. */
static void give_back_by_punch(struct gmem_vm *g)
{
	gmem_punch(g->fd, 0, SIZE);
}

/* Nothing else holds the memory. */
static void give_back_by_close(struct gmem_vm *g)
{
	gmem_vm_close_fd(g);
}

/* In microseconds.  The pages must have come, and must go. */
static uint64_t time_of(void (*give_back)(struct gmem_vm *g), struct gmem_vm *g,
			long base)
{
	uint64_t start, us;

	TEST_ASSERT(gmem_pages_are(base, NR_PAGES), "too few pages are used");
	start = gmem_now_us();
	give_back(g);
	us = gmem_now_us() - start;
	TEST_ASSERT(gmem_pages_are(base, 0), "pages were not given back");
	return us;
}

static void print_time(const char *what, uint64_t us)
{
	ksft_print_msg("%s: %.1f ns per page\n", what, us * 1000.0 / NR_PAGES);
}

TEST_F(time, punch)
{
	struct gmem_vm *g = &self->g;
	uint64_t best = -1;
	long base;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		base = gmem_file_pages();
		variant->use(g);
		best = min(best, time_of(give_back_by_punch, g, base));
	}
	print_time("punch", best);
}

TEST_F(time, close)
{
	struct gmem_vm *g = &self->g;
	uint64_t best = -1;
	long base;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		base = gmem_file_pages();
		variant->use(g);
		gmem_delete_slot(g->vm, GMEM_SLOT);
		best = min(best, time_of(give_back_by_close, g, base));
		g->fd = vm_create_guest_memfd(g->vm, SIZE, 0);
		gmem_vm_bind(g);
	}
	print_time("close", best);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
