// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA policies: mbind() on a mapping decides on which node a page of the file is
 * allocated, whoever needs it first.  A kernel that cannot do that refuses.
 */
#include <linux/mempolicy.h>

#include "gmem_mmap_plain.h"

/* As bits of a node mask, which the kernel wants to be told the size of. */
#define NODE(n)	  BIT_ULL(n)
#define NR_BITS	  64

static int __mbind(void *mem, size_t size, int mode, uint64_t nodes,
		   unsigned int flags)
{
	return syscall(__NR_mbind, mem, size, mode, nodes ? &nodes : NULL,
		       NR_BITS, flags) ? errno : 0;
}

static void bind_to(void *mem, size_t size, int mode, uint64_t nodes)
{
	TEST_ASSERT_EQ(__mbind(mem, size, mode, nodes, 0), 0);
}

/* The policy that @mem's page is allocated by, and its nodes. */
static int policy_of(void *mem, uint64_t *nodes)
{
	/* Nodes that the kernel could have, which may be more than it has */
	uint64_t mask[16] = {};
	int mode;

	TEST_ASSERT(!syscall(__NR_get_mempolicy, &mode, mask,
			     8 * sizeof(mask), mem, MPOL_F_ADDR),
		    "get_mempolicy() failed");
	*nodes = mask[0];
	return mode;
}

/* Where a page is that the host has mapped: a node or an error. */
static int node_of(void *mem)
{
	int status = -1;

	TEST_ASSERT(!syscall(__NR_move_pages, 0, 1, &mem, NULL, &status, 0),
		    "move_pages() failed");
	return status;
}

/* Touch all of the memory and count the pages that are on @node. */
static int count_on_node(void *mem, size_t size, int node)
{
	int nr = 0;
	size_t i;

	TEST_ASSERT(!madvise(mem, size, MADV_POPULATE_READ),
		    "MADV_POPULATE_READ failed");
	for (i = 0; i < size; i += PAGE_SIZE)
		nr += node_of(mem + i) == node;
	return nr;
}

/* Pages of files on @node, mapped or not */
static long file_pages_on(int node)
{
	char path[64];

	gmem_write_file("/proc/sys/vm/stat_refresh", "1");
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/vmstat",
		 node);
	return gmem_read_long(path, "nr_file_pages");
}

/*
 * Where there are no policies
 */

FIXTURE(refused)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(refused)
{
	if (access("/sys/devices/system/node/node0", F_OK))
		SKIP(return, "no NUMA");
	gmem_usage_get(&self->usage);
	gmem_plain_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(refused)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

TEST_F(refused, and_nothing_changes)
{
	struct gmem_vm *g = &self->g;
	uint64_t nodes;

	EXPECT_EQ(EOPNOTSUPP, __mbind(g->shared, TEST_SIZE, MPOL_BIND, NODE(0), 0));
	EXPECT_EQ(EOPNOTSUPP, __mbind(g->shared, TEST_SIZE, MPOL_INTERLEAVE,
				      NODE(0), 0));
	EXPECT_EQ(MPOL_DEFAULT, policy_of(g->shared, &nodes));
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(g->shared, TEST_SIZE, 0x51);
}

/*
 * Where there are
 */

TEST_F(plain, host_touches_first)
{
	struct gmem_vm *g = &self->g;
	int node;

	for (node = 0; node < 2; node++) {
		bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(node));
		EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, node));
		gmem_punch(g->fd, 0, TEST_SIZE);
	}
}

TEST_F(plain, guest_touches_first)
{
	struct gmem_vm *g = &self->g;
	int node;

	for (node = 0; node < 2; node++) {
		bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(node));
		gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
		EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, node));
		gmem_punch(g->fd, 0, TEST_SIZE);
	}
}

TEST_F(plain, prefault_and_fallocate_come_first)
{
	struct gmem_vm *g = &self->g;
	uint64_t left;
	int node;

	for (node = 0; node < 2; node++) {
		bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(node));
		gmem_allocate(g->fd, 0, HALF);
		if (kvm_is_tdp_enabled())
			TEST_ASSERT_EQ(__gmem_pre_fault(g->vcpu, GMEM_GPA + HALF,
							HALF, 0, &left), 0);
		EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, node));
		gmem_punch(g->fd, 0, TEST_SIZE);
	}
}

TEST_F(plain, each_part_has_its_own)
{
	struct gmem_vm *g = &self->g;
	uint64_t nodes;

	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(0));
	bind_to(g->shared + HALF, 2 * PAGE_SIZE, MPOL_PREFERRED, NODE(1));

	EXPECT_EQ(MPOL_BIND, policy_of(g->shared + HALF - 1, &nodes));
	EXPECT_EQ(NODE(0), nodes);
	EXPECT_EQ(MPOL_PREFERRED, policy_of(g->shared + HALF, &nodes));
	EXPECT_EQ(NODE(1), nodes);
	EXPECT_EQ(MPOL_BIND, policy_of(g->shared + HALF + 2 * PAGE_SIZE, &nodes));

	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	EXPECT_EQ(NR_PAGES - 2, count_on_node(g->shared, TEST_SIZE, 0));
	EXPECT_EQ(1, node_of(g->shared + HALF));
	EXPECT_EQ(1, node_of(g->shared + HALF + PAGE_SIZE));
}

TEST_F(plain, interleave)
{
	struct gmem_vm *g = &self->g;
	size_t i;

	bind_to(g->shared, TEST_SIZE, MPOL_INTERLEAVE, NODE(0) | NODE(1));
	/* Whoever touches it, and in which order */
	gmem_guest_fill(g, HALF, HALF, 0x51);
	EXPECT_EQ(NR_PAGES / 2, count_on_node(g->shared, TEST_SIZE, 1));
	for (i = PAGE_SIZE; i < TEST_SIZE; i += PAGE_SIZE)
		EXPECT_EQ(!node_of(g->shared + i - PAGE_SIZE),
			  node_of(g->shared + i));
}

TEST_F(plain, pages_stay_where_they_are)
{
	struct gmem_vm *g = &self->g;

	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(0));
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, 0));

	EXPECT_EQ(EIO, __mbind(g->shared, TEST_SIZE, MPOL_BIND, NODE(1),
			       MPOL_MF_STRICT));
	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(1));
	__mbind(g->shared, TEST_SIZE, MPOL_BIND, NODE(1), MPOL_MF_MOVE);
	EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, 0));
	gmem_guest_expect(g, 0, TEST_SIZE, 0x51);

	/* Until there are new ones */
	gmem_punch(g->fd, HALF, HALF);
	gmem_guest_expect(g, HALF, HALF, 0);
	EXPECT_EQ(NR_PAGES / 2, count_on_node(g->shared, TEST_SIZE, 1));
	gmem_guest_expect(g, 0, HALF, 0x51);
}

TEST_F(plain, policy_is_the_memorys)
{
	struct gmem_vm *g = &self->g;
	uint64_t nodes;
	void *mem;
	pid_t pid;

	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(1));
	munmap(g->shared, TEST_SIZE);
	g->shared = gmem_map(g->fd, TEST_SIZE);
	EXPECT_EQ(MPOL_BIND, policy_of(g->shared, &nodes));
	EXPECT_EQ(NODE(1), nodes);

	/* Of another process, through another mapping of a part */
	pid = gmem_fork();
	if (!pid) {
		mem = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, g->fd, HALF);
		TEST_ASSERT_EQ(policy_of(mem, &nodes), MPOL_BIND);
		bind_to(mem, PAGE_SIZE, MPOL_BIND, NODE(0));
		_exit(0);
	}
	gmem_wait_ok(pid);
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	EXPECT_EQ(NR_PAGES - 1, count_on_node(g->shared, TEST_SIZE, 1));
	EXPECT_EQ(0, node_of(g->shared + HALF));

	/* mm has nothing to do for a mapping that it knows no policy of. */
	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(0));
	bind_to(g->shared, TEST_SIZE, MPOL_DEFAULT, 0);
	EXPECT_EQ(MPOL_DEFAULT, policy_of(g->shared, &nodes));
	EXPECT_EQ(MPOL_DEFAULT, policy_of(g->shared + HALF, &nodes));
}

/* Of two files of the same size, at once */
TEST_F(plain, policy_is_that_of_one_file)
{
	struct gmem_vm *g = &self->g;
	int fd = vm_create_guest_memfd(g->vm, TEST_SIZE, GMEM_BOTH);
	void *mem = gmem_map(fd, TEST_SIZE);
	uint64_t nodes;

	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(1));
	EXPECT_EQ(MPOL_DEFAULT, policy_of(mem, &nodes));
	bind_to(mem, TEST_SIZE, MPOL_BIND, NODE(0));
	EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, 1));
	EXPECT_EQ(NR_PAGES, count_on_node(mem, TEST_SIZE, 0));
	munmap(mem, TEST_SIZE);
	close(fd);
}

TEST_F(plain, nonsense_is_refused)
{
	struct gmem_vm *g = &self->g;
	uint64_t nodes;

	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(1));
	EXPECT_EQ(EINVAL, __mbind(g->shared, TEST_SIZE, 999, NODE(0), 0));
	EXPECT_EQ(EINVAL, __mbind(g->shared, TEST_SIZE, MPOL_BIND, 0, 0));
	EXPECT_EQ(EINVAL, __mbind(g->shared, TEST_SIZE, MPOL_BIND, NODE(60), 0));
	EXPECT_EQ(EINVAL, __mbind(g->shared + 1, PAGE_SIZE, MPOL_BIND, NODE(0), 0));
	EXPECT_EQ(EINVAL, __mbind(g->shared, TEST_SIZE, MPOL_BIND, NODE(0), 1 << 9));
	EXPECT_EQ(MPOL_BIND, policy_of(g->shared, &nodes));
	EXPECT_EQ(NODE(1), nodes);
	EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, 1));
}

TEST_F(plain, rights_of_the_view)
{
	static const uint64_t flags[] = {
		KVM_LINK_GUEST_MEMFD_SHARE,
		KVM_LINK_GUEST_MEMFD_SHARE | KVM_LINK_GUEST_MEMFD_READONLY,
		KVM_LINK_GUEST_MEMFD_SHARE | KVM_LINK_GUEST_MEMFD_NO_FALLOCATE,
		0,
	};
	struct gmem_vm *g = &self->g, other;
	uint64_t nodes;
	int i;

	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(0));
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		gmem_plain_create_linked(&other, TEST_SIZE, g->fd, flags[i]);
		EXPECT_EQ(flags[i] == KVM_LINK_GUEST_MEMFD_SHARE ? 0 : EPERM,
			  __mbind(other.shared, TEST_SIZE, MPOL_BIND, NODE(1), 0));
		/* It says so to all. */
		EXPECT_EQ(MPOL_BIND, policy_of(other.shared, &nodes));
		EXPECT_EQ(NODE(1), nodes);
		EXPECT_EQ(MPOL_BIND, policy_of(g->shared, &nodes));
		EXPECT_EQ(NODE(1), nodes);
		gmem_vm_free(&other);
	}
	EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, 1));
}

/* The host can map the file, only not touch what it maps. */
TEST_F(plain, private_memory)
{
	struct gmem_vm g;
	long pages[2];
	void *mem;
	int node;

	if (!gmem_has_sw_protected())
		SKIP(return, "no software-protected VMs");

	for (node = 0; node < 2; node++) {
		gmem_vm_create_empty(&g, TEST_SIZE);
		g.fd = vm_create_guest_memfd(g.vm, TEST_SIZE, GMEM_MMAP);
		mem = gmem_map(g.fd, TEST_SIZE);
		gmem_vm_bind(&g);
		vm_mem_set_private(g.vm, GMEM_GPA, TEST_SIZE);

		bind_to(mem, TEST_SIZE, MPOL_BIND, NODE(node));
		munmap(mem, TEST_SIZE);
		pages[node] = file_pages_on(node);
		pages[!node] = file_pages_on(!node);
		gmem_guest_fill(&g, 0, TEST_SIZE, 0x51);
		EXPECT_LE(NR_PAGES - 16, file_pages_on(node) - pages[node]);
		EXPECT_GE(16, file_pages_on(!node) - pages[!node]);
		gmem_guest_expect(&g, 0, TEST_SIZE, 0x51);
		gmem_vm_free(&g);
	}
}

static bool stop;

static void *set_policies(void *arg)
{
	struct gmem_vm *g = arg;
	long i;

	for (i = 0; !READ_ONCE(stop); i++) {
		bind_to(g->shared + i % NR_PAGES * PAGE_SIZE,
			(NR_PAGES - i % NR_PAGES) * PAGE_SIZE,
			i % 3 ? MPOL_INTERLEAVE : MPOL_BIND, 1 + i % 2);
		if (!(i % 7))
			bind_to(g->shared, TEST_SIZE, MPOL_DEFAULT, 0);
	}
	return (void *)i;
}

static void *punch_holes(void *arg)
{
	struct gmem_vm *g = arg;
	long i;

	for (i = 0; !READ_ONCE(stop); i++)
		gmem_punch(g->fd, i % 2 * HALF, HALF);
	return (void *)i;
}

static void *touch_memory(void *arg)
{
	struct gmem_vm *g = arg;
	long i;

	for (i = 0; !READ_ONCE(stop); i++)
		madvise(g->shared, TEST_SIZE, MADV_POPULATE_READ);
	return (void *)i;
}

/* What the guest finds is 0, or what it has just written. */
TEST_F(plain, policies_change_under_faults_and_holes)
{
	static void *(* const fns[])(void *) = {
		set_policies, punch_holes, touch_memory,
	};
	struct gmem_vm *g = &self->g;
	pthread_t threads[ARRAY_SIZE(fns)];
	uint64_t end = gmem_now_ms() + 3000;
	void *nr[ARRAY_SIZE(fns)];
	int i;

	WRITE_ONCE(stop, false);
	for (i = 0; i < ARRAY_SIZE(fns); i++)
		threads[i] = gmem_thread(fns[i], g);
	for (i = 0; gmem_now_ms() < end; i++)
		gmem_guest_fill(g, 0, TEST_SIZE, i);
	WRITE_ONCE(stop, true);
	for (i = 0; i < ARRAY_SIZE(fns); i++) {
		pthread_join(threads[i], &nr[i]);
		EXPECT_LT(0, (long)nr[i]);
	}
	TH_LOG("%ld policies, %ld holes, %ld times touched", (long)nr[0],
	       (long)nr[1], (long)nr[2]);

	bind_to(g->shared, TEST_SIZE, MPOL_BIND, NODE(1));
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	EXPECT_EQ(NR_PAGES, count_on_node(g->shared, TEST_SIZE, 1));
}

/*
 * Huge folios
 */

#define BLOCK	  SZ_2M
#define NR_BLOCKS 4
#define HUGE_SIZE (NR_BLOCKS * BLOCK)

FIXTURE(huge)
{
	struct gmem_usage usage;
	struct gmem_vm g;
	long nr;	/* of all other files */
};

FIXTURE_SETUP(huge)
{
	if (!gmem_may_be_huge())
		SKIP(return, "no huge folios");
	gmem_usage_get(&self->usage);
	gmem_plain_create(&self->g, HUGE_SIZE);
	/* What belongs to the library is there now. */
	gmem_guest_expect(&self->g, 0, 0, 0);
	self->nr = gmem_nr_huge();
}

FIXTURE_TEARDOWN(huge)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

#define EXPECT_HUGE(folios) EXPECT_EQ(folios, gmem_nr_huge() - self->nr)

/* Is all of the memory from @mem on @node? */
static bool all_on_node(void *mem, size_t size, int node)
{
	return count_on_node(mem, size, node) == size / PAGE_SIZE;
}

TEST_F(huge, whoever_comes_first)
{
	struct gmem_vm *g = &self->g;
	uint64_t left;
	int node;

	for (node = 0; node < 2; node++) {
		bind_to(g->shared, HUGE_SIZE, MPOL_BIND, NODE(node));
		gmem_allocate(g->fd, 0, BLOCK);
		gmem_guest_fill(g, BLOCK + PAGE_SIZE, 8, 0x51);
		WRITE_ONCE(*(char *)(g->shared + 3 * BLOCK - 1), 1);
		if (kvm_is_tdp_enabled())
			TEST_ASSERT_EQ(__gmem_pre_fault(g->vcpu,
							GMEM_GPA + 3 * BLOCK,
							PAGE_SIZE, 0, &left), 0);
		EXPECT_TRUE(all_on_node(g->shared, HUGE_SIZE, node));
		EXPECT_HUGE(NR_BLOCKS);
		gmem_punch(g->fd, 0, HUGE_SIZE);
	}
}

TEST_F(huge, interleaved_one_by_one)
{
	struct gmem_vm *g = &self->g;
	int i, node;

	bind_to(g->shared, HUGE_SIZE, MPOL_INTERLEAVE, NODE(0) | NODE(1));
	gmem_guest_fill(g, 2 * BLOCK, 2 * BLOCK, 0x51);
	gmem_allocate(g->fd, 0, HUGE_SIZE);
	EXPECT_HUGE(NR_BLOCKS);
	node = all_on_node(g->shared, BLOCK, 1);
	for (i = 0; i < NR_BLOCKS; i++)
		EXPECT_TRUE(all_on_node(g->shared + i * BLOCK, BLOCK,
					(node + i) % 2));
}

TEST_F(huge, policies_end_where_blocks_do)
{
	struct gmem_vm *g = &self->g;
	int i;

	for (i = 0; i < NR_BLOCKS; i++)
		bind_to(g->shared + i * BLOCK, BLOCK, MPOL_BIND, NODE(i % 2));
	gmem_guest_fill(g, 0, HUGE_SIZE, 0x51);
	EXPECT_HUGE(NR_BLOCKS);
	for (i = 0; i < NR_BLOCKS; i++)
		EXPECT_TRUE(all_on_node(g->shared + i * BLOCK, BLOCK, i % 2));
}

/* Before, behind and around which there is another one, or none */
TEST_F(huge, policy_of_a_part_of_a_block)
{
	static const struct {
		size_t start, size;
	} parts[] = {
		{ 0, PAGE_SIZE },
		{ BLOCK - PAGE_SIZE, PAGE_SIZE },
		{ 7 * PAGE_SIZE, 2 * PAGE_SIZE },
		{ BLOCK / 2, BLOCK / 2 },
	};
	struct gmem_vm *g = &self->g;
	void *block = g->shared + BLOCK;
	int i, other;

	for (i = 0; i < 2 * ARRAY_SIZE(parts); i++) {
		size_t start = parts[i / 2].start, size = parts[i / 2].size;

		for (other = 0; other < HUGE_SIZE; other += BLOCK)
			bind_to(g->shared + other, BLOCK, MPOL_DEFAULT, 0);
		if (i % 2)
			bind_to(g->shared, HUGE_SIZE, MPOL_BIND, NODE(0));
		bind_to(block + start, size, MPOL_BIND, NODE(1));

		gmem_guest_fill(g, 0, HUGE_SIZE, 0x51);
		EXPECT_HUGE(NR_BLOCKS - 1);
		EXPECT_TRUE(all_on_node(block + start, size, 1));
		if (i % 2) {
			EXPECT_TRUE(all_on_node(g->shared, BLOCK + start, 0));
			EXPECT_TRUE(all_on_node(block + start + size,
						HUGE_SIZE - BLOCK - start - size,
						0));
		}

		bind_to(block, BLOCK, MPOL_BIND, NODE(1));
		gmem_punch(g->fd, 0, HUGE_SIZE);
		gmem_guest_fill(g, 0, HUGE_SIZE, 0x51);
		EXPECT_HUGE(NR_BLOCKS);
		EXPECT_TRUE(all_on_node(block, BLOCK, 1));
		gmem_punch(g->fd, 0, HUGE_SIZE);
	}
}

/* vm/tests.cfg says which fixtures are for which kernel: some want two nodes. */
int main(int argc, char *argv[])
{
	gmem_require_mmap();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD_LINK));
	return test_harness_run(argc, argv);
}
