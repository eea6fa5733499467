// SPDX-License-Identifier: GPL-2.0
/*
 * The time that a move takes, which does not depend on how much memory there is,
 * how much of it is mapped, and how many ranges of attributes there are.  The
 * VMs have no guest, and as much memory as the test wants.
 */
#include "gmem_link_util.h"

struct big {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	int fd;
};

FIXTURE(time)
{
	struct gmem_usage usage;
	void *shared;
};

#define MAX_SIZE (64ul * SZ_1G)

FIXTURE_SETUP(time)
{
	gmem_usage_get(&self->usage);
	self->shared = gmem_mmap(MAX_SIZE);
}

FIXTURE_TEARDOWN(time)
{
	munmap(self->shared, MAX_SIZE);
	gmem_usage_check(&self->usage);
}

/* A VM with @size bytes of new memory, or of that behind @fd. */
static void big_create(struct big *b, size_t size, void *shared, int fd)
{
	b->vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	b->vcpu = __vm_vcpu_add(b->vm, 0);
	if (fd < 0)
		b->fd = vm_create_guest_memfd(b->vm, size, 0);
	else
		b->fd = gmem_link(b->vm, fd, 0);
	gmem_set_slot(b->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, size,
		      shared, b->fd, 0);
}

static void big_free(struct big *b)
{
	close(b->fd);
	gmem_free_dead_vm(b->vm);
}

static void big_touch(struct big *b, size_t size)
{
	uint64_t left = size;

	while (left) {
		TEST_ASSERT_EQ(__gmem_pre_fault(b->vcpu, GMEM_GPA + size - left,
						left, 0, &left), 0);
	}
}

/* In microseconds. */
static uint64_t time_move(struct kvm_vm *dst, struct kvm_vm *src)
{
	uint64_t start = gmem_now_us();

	gmem_move(dst, src);
	return gmem_now_us() - start;
}

/*
 * Move @b, of whose memory the first @touched bytes are mapped, on and on.
 * Return the time of the quickest: others may have met with something else.
 */
static uint64_t best_move(struct big *b, size_t size, size_t touched,
			  void *shared, int rounds)
{
	uint64_t best = -1;
	struct big next;

	while (rounds--) {
		big_touch(b, touched);
		big_create(&next, size, shared, b->fd);
		best = min(best, time_move(next.vm, b->vm));
		big_free(b);
		*b = next;
	}
	return best;
}

static uint64_t best_move_of(size_t size, size_t touched, void *shared,
			     int rounds)
{
	struct big b;
	uint64_t us;

	big_create(&b, size, shared, -1);
	vm_mem_set_private(b.vm, GMEM_GPA, size);
	us = best_move(&b, size, touched, shared, rounds);
	big_free(&b);
	return us;
}

/* Something that takes 10 ns for each page takes more for 1 GiB. */
#define SLACK_US 2500

TEST_F(time, does_not_grow_with_memory)
{
	uint64_t small, large, sparse;

	small = best_move_of(SZ_64M, SZ_64M, self->shared, 5);
	TH_LOG("move of   64 MiB, all used:   %lu us", small);
	large = best_move_of(SZ_1G, SZ_1G, self->shared, 2);
	TH_LOG("move of 1024 MiB, all used:   %lu us", large);
	sparse = best_move_of(MAX_SIZE, 0, self->shared, 5);
	TH_LOG("move of   64 GiB, never used: %lu us", sparse);
	EXPECT_GT(3 * small + SLACK_US, large);
	EXPECT_GT(3 * small + SLACK_US, sparse);
}

#define NR_RANGES 60000
#define STRIDE	  23

/* Touch page @page of some of the pairs of a private and a shared page. */
static void touch_some(struct big *b, int page)
{
	uint64_t gpa;
	int i;

	for (i = 0; i < NR_RANGES; i += STRIDE) {
		gpa = GMEM_GPA + (2 * i + page) * PAGE_SIZE;
		TEST_ASSERT_EQ(__gmem_pre_fault(b->vcpu, gpa, PAGE_SIZE, 0, NULL),
			       0);
	}
}

TEST_F(time, does_not_grow_with_attributes)
{
	uint64_t none, many;
	struct big b;
	long base;
	int i;

	none = best_move_of(MAX_SIZE, 0, self->shared, 5);
	TH_LOG("move of 1 range of attributes: %lu us", none);

	/* Every other page, over 120000 pages */
	big_create(&b, MAX_SIZE, self->shared, -1);
	for (i = 0; i < NR_RANGES; i++)
		vm_mem_set_private(b.vm, GMEM_GPA + 2 * i * PAGE_SIZE, PAGE_SIZE);
	many = best_move(&b, MAX_SIZE, 0, self->shared, 5);
	TH_LOG("move of %d ranges:          %lu us", NR_RANGES, many);
	EXPECT_GT(3 * none + SLACK_US, many);

	/* Private memory is the guest_memfd's, shared memory is not. */
	base = gmem_file_pages();
	touch_some(&b, 0);
	EXPECT_TRUE(gmem_pages_are(base, DIV_ROUND_UP(NR_RANGES, STRIDE)));
	base = gmem_file_pages();
	touch_some(&b, 1);
	EXPECT_TRUE(gmem_pages_are(base, 0));
	big_free(&b);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM));
	return test_harness_run(argc, argv);
}
