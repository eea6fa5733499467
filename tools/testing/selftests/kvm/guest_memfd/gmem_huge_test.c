// SPDX-License-Identifier: GPL-2.0
/*
 * Huge folios: when memory comes as one, what maps it, and that a part of one
 * can be taken away without touching the rest.
 */
#include <fcntl.h>
#include <sys/uio.h>

#include "gmem_cgroup_util.h"
#include "gmem_link_util.h"
#include "gmem_mmap_util.h"
#include "gmem_poison_util.h"

#define BLOCK	  SZ_2M
#define PER_BLOCK (BLOCK / PAGE_SIZE)
#define NR_BLOCKS 3
#define TEST_SIZE (NR_BLOCKS * BLOCK)
#define VALUE	  0x600dULL

static uint64_t pages_2m(struct kvm_vm *vm)
{
	return vm_get_stat(vm, "pages_2m");
}

FIXTURE(huge)
{
	struct gmem_usage usage;
	struct gmem_vm g;
	uint64_t mapped;	/* huge SPTEs, when there was no memory */
	long pages, huge;	/* in the page cache */
};

FIXTURE_SETUP(huge)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
	/* What belongs to the library is there now. */
	gmem_guest_expect(&self->g, 0, 0, 0);
	self->pages = gmem_file_pages();
	self->huge = gmem_nr_huge();
	self->mapped = pages_2m(self->g.vm);
}

FIXTURE_TEARDOWN(huge)
{
	gmem_vm_free(&self->g);
	EXPECT_EQ(self->huge, gmem_nr_huge());
	gmem_usage_check(&self->usage);
}

/* Has the file @small pages in small folios, and @huge huge ones? */
#define EXPECT_FOLIOS(small, folios)					\
do {									\
	long __folios = folios;						\
									\
	EXPECT_TRUE(gmem_pages_are(self->pages,				\
				   (small) + __folios * PER_BLOCK));	\
	EXPECT_EQ(__folios, gmem_nr_huge() - self->huge);			\
} while (0)

#define EXPECT_MAPPED(huge_sptes)					\
	EXPECT_EQ(huge_sptes, pages_2m(self->g.vm) - self->mapped)

TEST_F(huge, touch_takes_a_block)
{
	struct gmem_vm *g = &self->g;

	gmem_pollute_free_memory();
	gmem_guest_fill(g, BLOCK + PAGE_SIZE, 8, VALUE);
	EXPECT_FOLIOS(0, 1);
	EXPECT_MAPPED(1);
	gmem_guest_expect(g, BLOCK, PAGE_SIZE, 0);
	gmem_guest_expect(g, BLOCK + PAGE_SIZE, 8, VALUE);
	gmem_guest_expect(g, BLOCK + PAGE_SIZE + 8, BLOCK - PAGE_SIZE - 8, 0);
	EXPECT_MAPPED(1);
	gmem_guest_fill(g, 0, TEST_SIZE, VALUE);
	EXPECT_FOLIOS(0, NR_BLOCKS);
	EXPECT_MAPPED(NR_BLOCKS);
	gmem_guest_expect(g, 0, TEST_SIZE, VALUE);
}

TEST_F(huge, prefault_takes_blocks)
{
	struct gmem_vm *g = &self->g;
	struct kvm_pre_fault_memory range = {
		.gpa = GMEM_GPA + PAGE_SIZE,
		.size = BLOCK,
	};

	if (!kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY))
		SKIP(return, "no prefault");

	ASSERT_EQ(0, __vcpu_ioctl(g->vcpu, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(0, range.size);
	EXPECT_FOLIOS(0, 2);
	EXPECT_MAPPED(2);
}

TEST_F(huge, allocated_as_far_as_asked_for)
{
	struct gmem_vm *g = &self->g;

	gmem_allocate(g->fd, PAGE_SIZE, 2 * BLOCK - 2 * PAGE_SIZE);
	EXPECT_FOLIOS(2 * PER_BLOCK - 2, 0);
	gmem_allocate(g->fd, 0, TEST_SIZE);
	EXPECT_FOLIOS(2 * PER_BLOCK, 1);
	gmem_punch(g->fd, 0, TEST_SIZE);
	EXPECT_FOLIOS(0, 0);
	gmem_allocate(g->fd, 0, TEST_SIZE);
	EXPECT_FOLIOS(0, NR_BLOCKS);
	EXPECT_MAPPED(0);
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	EXPECT_MAPPED(NR_BLOCKS);
	EXPECT_FOLIOS(0, NR_BLOCKS);
}

/* Allocated at all sizes, and then nothing but zeroes, whatever was there. */
TEST_F(huge, hole_takes_no_more_than_itself)
{
	static const struct {
		int start, nr;
	} holes[] = {
		{ 0, 1 }, { PER_BLOCK - 1, 1 }, { 7, 3 }, { PER_BLOCK - 1, 2 },
		{ 1, PER_BLOCK - 2 }, { PER_BLOCK / 2, PER_BLOCK },
		{ 1, NR_BLOCKS * PER_BLOCK - 2 },
	};
	struct gmem_vm *g = &self->g;
	size_t start, size;
	int i, kept;

	for (i = 0; i < ARRAY_SIZE(holes); i++) {
		start = holes[i].start * PAGE_SIZE;
		size = holes[i].nr * PAGE_SIZE;
		/* The blocks that the hole does not touch */
		kept = NR_BLOCKS - (start + size - 1) / BLOCK - 1;

		gmem_guest_fill(g, 0, TEST_SIZE, VALUE);
		EXPECT_FOLIOS(0, NR_BLOCKS);
		gmem_punch(g->fd, start, size);
		EXPECT_EQ(kept, gmem_nr_huge() - self->huge);
		EXPECT_TRUE(gmem_pages_are(self->pages,
					   (TEST_SIZE - size) / PAGE_SIZE));
		gmem_guest_expect(g, 0, start, VALUE);
		gmem_guest_expect(g, start + size, TEST_SIZE - start - size,
				  VALUE);
		EXPECT_MAPPED(kept);
		gmem_guest_expect(g, start, size, 0);
		gmem_punch(g->fd, 0, TEST_SIZE);
		EXPECT_FOLIOS(0, 0);
		EXPECT_MAPPED(0);
	}
}

TEST_F(huge, whole_again_once_it_was_empty)
{
	struct gmem_vm *g = &self->g;

	gmem_guest_fill(g, 0, BLOCK, VALUE);
	gmem_punch(g->fd, PAGE_SIZE, PAGE_SIZE);
	gmem_guest_fill(g, 0, BLOCK, VALUE);
	EXPECT_FOLIOS(PER_BLOCK, 0);
	EXPECT_MAPPED(0);
	gmem_punch(g->fd, 0, PAGE_SIZE);
	gmem_punch(g->fd, PAGE_SIZE, BLOCK - PAGE_SIZE);
	gmem_guest_fill(g, PAGE_SIZE, PAGE_SIZE, VALUE);
	EXPECT_FOLIOS(0, 1);
	EXPECT_MAPPED(1);
}

/* Attributes split the mapping, but not the memory. */
TEST_F(huge, not_mapped_where_attributes_differ)
{
	struct gmem_vm *g = &self->g;
	const uint64_t shared = 3 * PAGE_SIZE;

	gmem_guest_fill(g, 0, BLOCK, VALUE);
	EXPECT_MAPPED(1);
	vm_mem_set_shared(g->vm, GMEM_GPA + shared, PAGE_SIZE);
	EXPECT_MAPPED(0);
	gmem_guest_fill(g, shared, PAGE_SIZE, 1);
	gmem_guest_expect(g, 0, shared, VALUE);
	gmem_guest_expect(g, shared, PAGE_SIZE, 1);
	gmem_guest_expect(g, 4 * PAGE_SIZE, BLOCK - 4 * PAGE_SIZE, VALUE);
	EXPECT_MAPPED(0);
	EXPECT_FOLIOS(0, 1);
	vm_mem_set_private(g->vm, GMEM_GPA + shared, PAGE_SIZE);
	gmem_guest_expect(g, shared, PAGE_SIZE, VALUE);
	EXPECT_MAPPED(1);
	EXPECT_FOLIOS(0, 1);
}

TEST_F(huge, no_block_where_attributes_differ)
{
	struct gmem_vm *g = &self->g;

	vm_mem_set_shared(g->vm, GMEM_GPA, PAGE_SIZE);
	gmem_guest_fill(g, PAGE_SIZE, 3 * PAGE_SIZE, VALUE);
	EXPECT_FOLIOS(3, 0);
	EXPECT_MAPPED(0);
}

TEST_F(huge, never_past_the_end)
{
	const size_t size = BLOCK + 5 * PAGE_SIZE;
	struct gmem_vm *g = &self->g;
	int fd = vm_create_guest_memfd(g->vm, size, 0);

	gmem_allocate(fd, 0, size);
	EXPECT_FOLIOS(5, 1);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, size,
		      g->shared, fd, 0);
	gmem_guest_fill(g, 0, size, VALUE);
	EXPECT_FOLIOS(5, 1);
	EXPECT_MAPPED(1);
	gmem_punch(fd, BLOCK - PAGE_SIZE, 6 * PAGE_SIZE);
	gmem_guest_fill(g, BLOCK, 5 * PAGE_SIZE, VALUE);
	EXPECT_FOLIOS(PER_BLOCK - 1 + 5, 0);
	close(fd);
}

/* Guest and file have no blocks in common, but may share huge folios. */
TEST_F(huge, slot_that_is_shifted)
{
	const size_t size = TEST_SIZE - BLOCK;
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, size,
		      g->shared, g->fd, PAGE_SIZE);
	gmem_guest_fill(g, 0, PAGE_SIZE, VALUE);
	EXPECT_FOLIOS(1, 0);
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_allocate(g->fd, 0, TEST_SIZE);
	gmem_guest_fill(g, 0, size, VALUE);
	EXPECT_FOLIOS(0, NR_BLOCKS);
	EXPECT_MAPPED(0);
	gmem_punch(g->fd, PAGE_SIZE, PAGE_SIZE);
	gmem_guest_expect(g, 0, PAGE_SIZE, 0);
	gmem_guest_expect(g, PAGE_SIZE, size - PAGE_SIZE, VALUE);
}

TEST_F(huge, no_block_across_slots)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
		      BLOCK / 2, g->shared, g->fd, 0);
	gmem_set_slot(g->vm, GMEM_SLOT + 1, KVM_MEM_GUEST_MEMFD,
		      GMEM_GPA + BLOCK / 2, TEST_SIZE - BLOCK / 2,
		      g->shared + BLOCK / 2, g->fd, BLOCK / 2);
	gmem_guest_fill(g, BLOCK / 2, PAGE_SIZE, VALUE);
	EXPECT_FOLIOS(1, 0);
	gmem_guest_fill(g, BLOCK, PAGE_SIZE, VALUE);
	EXPECT_FOLIOS(1, 1);
	EXPECT_MAPPED(1);
	gmem_delete_slot(g->vm, GMEM_SLOT + 1);
}

TEST_F(huge, small_where_a_cgroup_is_full)
{
	struct gmem_vm *g = &self->g;
	char limit[32];

	if (!gmem_cgroup_can())
		SKIP(return, "no memory cgroups");

	gmem_cgroup_create();
	gmem_cgroup_enter();
	snprintf(limit, sizeof(limit), "%ld",
		 gmem_read_long(gmem_cgroup_file("memory.current"), "") +
		 BLOCK / 2);
	gmem_cgroup_limit(limit);
	gmem_guest_fill(g, 0, 3 * PAGE_SIZE, VALUE);
	gmem_allocate(g->fd, BLOCK, 3 * PAGE_SIZE);
	EXPECT_FOLIOS(6, 0);
	gmem_cgroup_limit("max");
}

TEST_F(huge, linked_memory_stays_as_it_is)
{
	struct gmem_vm *g = &self->g;
	struct gmem_vm next;
	uint64_t mapped;

	if (!kvm_has_cap(KVM_CAP_GUEST_MEMFD_LINK))
		SKIP(return, "no links");

	gmem_guest_fill(g, 0, TEST_SIZE, VALUE);
	gmem_vm_create_linked(&next, TEST_SIZE, g->fd,
			      KVM_LINK_GUEST_MEMFD_SHARE);
	vm_mem_set_private(next.vm, GMEM_GPA, TEST_SIZE);
	mapped = pages_2m(next.vm);
	gmem_guest_expect(&next, 0, TEST_SIZE, VALUE);
	EXPECT_EQ(NR_BLOCKS, pages_2m(next.vm) - mapped);
	gmem_punch(next.fd, PAGE_SIZE, PAGE_SIZE);
	EXPECT_EQ(NR_BLOCKS - 1, pages_2m(next.vm) - mapped);
	EXPECT_MAPPED(NR_BLOCKS - 1);
	gmem_guest_expect(g, 0, PAGE_SIZE, VALUE);
	gmem_guest_expect(g, PAGE_SIZE, PAGE_SIZE, 0);
	gmem_guest_expect(g, 2 * PAGE_SIZE, TEST_SIZE - 2 * PAGE_SIZE, VALUE);
	EXPECT_FOLIOS(PER_BLOCK, NR_BLOCKS - 1);
	gmem_vm_free(&next);
}

TEST_F(huge, host_maps_blocks)
{
	struct gmem_vm plain;
	uint64_t mapped;

	gmem_plain_create(&plain, TEST_SIZE);
	mapped = pages_2m(plain.vm);
	gmem_host_fill(plain.shared, 1, VALUE);
	EXPECT_FOLIOS(0, 1);
	EXPECT_EQ(BLOCK / 1024, gmem_read_long("/proc/self/smaps_rollup",
					       "FilePmdMapped:"));
	gmem_guest_expect(&plain, 0, 8, VALUE);
	EXPECT_EQ(1, pages_2m(plain.vm) - mapped);
	gmem_punch(plain.fd, PAGE_SIZE, PAGE_SIZE);
	EXPECT_EQ(0, gmem_read_long("/proc/self/smaps_rollup",
				    "FilePmdMapped:"));
	gmem_host_expect(plain.shared, 8, VALUE);
	gmem_host_expect(plain.shared + PAGE_SIZE, PAGE_SIZE, 0);
	gmem_guest_expect(&plain, PAGE_SIZE, PAGE_SIZE, 0);
	EXPECT_EQ(0, pages_2m(plain.vm) - mapped);
	gmem_vm_free(&plain);
}

/* Somebody has a reference to the folio: what was punched is zero all the same. */
TEST_F(huge, hole_in_what_is_pinned)
{
	struct gmem_vm plain;
	struct iovec iov;
	int pipefd[2];

	gmem_plain_create(&plain, TEST_SIZE);
	gmem_host_fill(plain.shared, TEST_SIZE, VALUE);
	ASSERT_EQ(0, pipe(pipefd));
	iov.iov_base = plain.shared + 9 * PAGE_SIZE;
	iov.iov_len = PAGE_SIZE;
	ASSERT_EQ(PAGE_SIZE, vmsplice(pipefd[1], &iov, 1, 0));

	gmem_punch(plain.fd, 3 * PAGE_SIZE, BLOCK);
	gmem_host_expect(plain.shared, 3 * PAGE_SIZE, VALUE);
	gmem_guest_expect(&plain, 3 * PAGE_SIZE, BLOCK, 0);
	gmem_host_expect(plain.shared + 3 * PAGE_SIZE, BLOCK, 0);
	gmem_host_expect(plain.shared + 3 * PAGE_SIZE + BLOCK,
			 TEST_SIZE - BLOCK - 3 * PAGE_SIZE, VALUE);
	/* One block could be split. */
	EXPECT_FOLIOS(PER_BLOCK, NR_BLOCKS - 1);

	close(pipefd[0]);
	close(pipefd[1]);
	gmem_punch(plain.fd, 3 * PAGE_SIZE, BLOCK);
	EXPECT_FOLIOS(PER_BLOCK, NR_BLOCKS - 2);
	gmem_host_expect(plain.shared, 3 * PAGE_SIZE, VALUE);
	gmem_vm_free(&plain);
}

TEST_F(huge, one_page_fails)
{
	struct gmem_vm *g = &self->g;
	struct gmem_vm plain;
	unsigned long pfn;

	if (!can_poison())
		SKIP(return, "no injection of memory failures");

	gmem_plain_create(&plain, TEST_SIZE);
	gmem_host_fill(plain.shared, TEST_SIZE, VALUE);
	pfn = mapped_pfn(plain.shared + 7 * PAGE_SIZE);
	/* A mapping would have to be killed. */
	munmap(plain.shared, TEST_SIZE);
	plain.shared = NULL;
	gmem_guest_expect(&plain, 0, TEST_SIZE, VALUE);
	poison(pfn);
	gmem_guest_expect(&plain, 0, 7 * PAGE_SIZE, VALUE);
	EXPECT_EQ(EHWPOISON, __gmem_guest_fill(&plain, 7 * PAGE_SIZE, 8, 0));
	gmem_guest_expect(&plain, 8 * PAGE_SIZE, TEST_SIZE - 8 * PAGE_SIZE,
			  VALUE);
	gmem_punch(plain.fd, 7 * PAGE_SIZE, PAGE_SIZE);
	gmem_guest_expect(&plain, 7 * PAGE_SIZE, PAGE_SIZE, 0);
	gmem_vm_free(&plain);
	unpoison_all();
	gmem_guest_expect(g, 0, 8, 0);
}

TEST_F(huge, can_be_turned_off)
{
	struct gmem_vm *g = &self->g;
	int fd;

	gmem_write_file(GMEM_HUGE_FOLIOS, "N");
	fd = vm_create_guest_memfd(g->vm, TEST_SIZE, 0);
	gmem_write_file(GMEM_HUGE_FOLIOS, "Y");
	gmem_allocate(fd, 0, TEST_SIZE);
	EXPECT_FOLIOS(NR_BLOCKS * PER_BLOCK, 0);
	close(fd);
	gmem_allocate(g->fd, 0, TEST_SIZE);
	EXPECT_FOLIOS(0, NR_BLOCKS);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	gmem_require_mmap();
	TEST_REQUIRE(gmem_may_be_huge());
	return test_harness_run(argc, argv);
}
