// SPDX-License-Identifier: GPL-2.0
/*
 * Holes in a part of a huge folio to which somebody has a reference: they are
 * zeroes at once, and free memory once nobody has one, with nothing more to do; but
 * not what was used again in between.
 */
#include <fcntl.h>
#include <sys/uio.h>

#include "gmem_cgroup_util.h"
#include "gmem_mmap_util.h"

#define BLOCK	  SZ_2M
#define PER_BLOCK ((long)(BLOCK / PAGE_SIZE))
#define NR_BLOCKS 2
#define TEST_SIZE (NR_BLOCKS * BLOCK)
#define NR_PAGES  (NR_BLOCKS * PER_BLOCK)
#define VALUE	  0x600dULL

#define PINNED	9	/* the page that is pinned, unless said otherwise */

/* The hole, unless said otherwise, in pages: PINNED is in it. */
#define START	3
#define NR	400

/* In which whatever can be freed is */
#define SETTLE_US 1500000
#define WAIT_MS	  20000

FIXTURE(unpin)
{
	struct gmem_usage usage;
	struct gmem_vm g;
	long huge;
	int pipe[2];	/* has a reference to what was pinned */
};

/* Pin the page at @index for as long as @pipefd is open. */
static void pin(struct gmem_vm *g, int *pipefd, long index)
{
	struct iovec iov = {
		.iov_base = g->shared + index * PAGE_SIZE,
		.iov_len = PAGE_SIZE,
	};

	TEST_ASSERT(!pipe(pipefd), "pipe() failed");
	TEST_ASSERT_EQ(vmsplice(pipefd[1], &iov, 1, 0), (ssize_t)PAGE_SIZE);
}

static void unpin(int *pipefd)
{
	close(pipefd[0]);
	close(pipefd[1]);
}

static void punch(struct gmem_vm *g, long start, long nr)
{
	gmem_punch(g->fd, start * PAGE_SIZE, nr * PAGE_SIZE);
}

static void host_fill(struct gmem_vm *g, long start, long nr, uint64_t val)
{
	gmem_host_fill(g->shared + start * PAGE_SIZE, nr * PAGE_SIZE, val);
}

static void host_expect(struct gmem_vm *g, long start, long nr, uint64_t val)
{
	gmem_host_expect(g->shared + start * PAGE_SIZE, nr * PAGE_SIZE, val);
}

static void guest_fill(struct gmem_vm *g, long start, long nr, uint64_t val)
{
	gmem_guest_fill(g, start * PAGE_SIZE, nr * PAGE_SIZE, val);
}

static void guest_expect(struct gmem_vm *g, long start, long nr, uint64_t val)
{
	gmem_guest_expect(g, start * PAGE_SIZE, nr * PAGE_SIZE, val);
}

/* Root can have folios that are neither small nor as large as a block. */
#define SPLIT_FOLIOS "/sys/kernel/debug/split_huge_pages"
#define SPLIT_ORDER  2

static void split(struct gmem_vm *g, long start, long nr)
{
	char text[80];

	snprintf(text, sizeof(text), "%d,%p,%p,%d", getpid(),
		 g->shared + start * PAGE_SIZE,
		 g->shared + (start + nr) * PAGE_SIZE, SPLIT_ORDER);
	gmem_write_file(SPLIT_FOLIOS, text);
}

/* How many pages are in the file and hold something, be it zeroes? */
static long nr_present(struct gmem_vm *g)
{
	static unsigned char present[NR_PAGES];
	long i, nr = 0;

	TEST_ASSERT(!mincore(g->shared, TEST_SIZE, present),
		    "mincore() failed");
	for (i = 0; i < NR_PAGES; i++)
		nr += present[i] & 1;
	return nr;
}

/* Wait until that many are present, and return how many are. */
static long wait_present(struct gmem_vm *g, long nr)
{
	uint64_t end = gmem_now_ms() + WAIT_MS;

	while (nr_present(g) != nr && gmem_now_ms() < end)
		usleep(5000);
	return nr_present(g);
}

#define EXPECT_PRESENT(nr)						\
do {									\
	long __nr = nr;							\
									\
	EXPECT_EQ(__nr, wait_present(&self->g, __nr));			\
} while (0)

FIXTURE_SETUP(unpin)
{
	gmem_usage_get(&self->usage);
	self->huge = gmem_nr_huge();
	gmem_plain_create(&self->g, TEST_SIZE);
	host_fill(&self->g, 0, NR_PAGES, VALUE);
	ASSERT_EQ(self->huge + NR_BLOCKS, gmem_nr_huge());
	pin(&self->g, self->pipe, PINNED);
}

FIXTURE_TEARDOWN(unpin)
{
	gmem_vm_free(&self->g);
	EXPECT_EQ(self->huge, gmem_nr_huge());
	gmem_usage_check(&self->usage);
}

TEST_F(unpin, frees_what_was_punched)
{
	struct gmem_vm *g = &self->g;
	long pages = gmem_file_pages();

	punch(g, START, NR);
	host_expect(g, START, NR, 0);
	usleep(SETTLE_US);
	EXPECT_EQ(NR_PAGES, nr_present(g));
	EXPECT_TRUE(gmem_pages_are(pages, 0));
	EXPECT_EQ(self->huge + NR_BLOCKS, gmem_nr_huge());
	/* The guest has the rest, page by page. */
	guest_expect(g, 0, START, VALUE);
	guest_fill(g, START + NR, NR_PAGES - START - NR, VALUE + 1);

	unpin(self->pipe);
	EXPECT_PRESENT(NR_PAGES - NR);
	EXPECT_TRUE(gmem_pages_are(pages, -NR));
	EXPECT_EQ(self->huge + NR_BLOCKS - 1, gmem_nr_huge());
	host_expect(g, 0, START, VALUE);
	host_expect(g, START + NR, NR_PAGES - START - NR, VALUE + 1);
	guest_expect(g, START + NR, NR_PAGES - START - NR, VALUE + 1);
	guest_expect(g, START, NR, 0);
	EXPECT_EQ(NR_PAGES, nr_present(g));

	/* All is as ever: whole again once it was empty */
	punch(g, 0, PER_BLOCK);
	guest_fill(g, START, NR, VALUE);
	usleep(SETTLE_US);
	host_expect(g, START, NR, VALUE);
	EXPECT_EQ(self->huge + NR_BLOCKS, gmem_nr_huge());
}

TEST_F(unpin, uncharges_what_is_freed)
{
	const long before = NR_PAGES * PAGE_SIZE, after = before - NR * PAGE_SIZE;
	struct gmem_vm *g = &self->g;

	unpin(self->pipe);
	if (!gmem_cgroup_can())
		SKIP(return, "no memory cgroups");

	gmem_cgroup_create();
	gmem_cgroup_enter();
	punch(g, 0, NR_PAGES);
	guest_fill(g, 0, NR_PAGES, VALUE);
	pin(g, self->pipe, PINNED);
	EXPECT_EQ(before, gmem_cgroup_await_stat("file ", before));
	punch(g, START, NR);
	EXPECT_EQ(before, gmem_cgroup_stat("file "));
	unpin(self->pipe);
	EXPECT_PRESENT(NR_PAGES - NR);
	EXPECT_EQ(after, gmem_cgroup_await_stat("file ", after));
}

/* One hole has a part of a folio at each end. */
TEST_F(unpin, both_ends_of_a_hole)
{
	struct gmem_vm *g = &self->g;
	int other[2];

	pin(g, other, NR_PAGES - 1);
	punch(g, PER_BLOCK - 100, 200);
	host_expect(g, PER_BLOCK - 100, 200, 0);
	unpin(other);
	EXPECT_PRESENT(NR_PAGES - 100);
	unpin(self->pipe);
	EXPECT_PRESENT(NR_PAGES - 200);
	host_expect(g, 0, PER_BLOCK - 100, VALUE);
	host_expect(g, PER_BLOCK + 100, PER_BLOCK - 100, VALUE);
}

TEST_F(unpin, holes_add_up)
{
	struct gmem_vm *g = &self->g;

	punch(g, 10, 20);
	punch(g, 50, 1);
	punch(g, 20, 20);
	punch(g, PER_BLOCK - 1, 1);
	unpin(self->pipe);
	EXPECT_PRESENT(NR_PAGES - 32);
	host_expect(g, 0, 10, VALUE);
	host_expect(g, 40, 10, VALUE);
	host_expect(g, 51, PER_BLOCK - 52, VALUE);
	host_expect(g, PER_BLOCK, PER_BLOCK, VALUE);
}

TEST_F(unpin, leaves_what_is_used_again)
{
	struct gmem_vm *g = &self->g;

	punch(g, START, NR);
	guest_fill(g, START, 2, VALUE + 1);
	guest_expect(g, START + 10, 4, 0);
	gmem_allocate(g->fd, (START + 20) * PAGE_SIZE, 8 * PAGE_SIZE);
	host_fill(g, START + 30, 16, VALUE + 2);
	/* In either direction, and by way of a mapping that is there already */
	host_fill(g, START + NR - 1, 1, VALUE + 3);
	/* What the host left zero, it cannot tell from what was freed. */
	host_expect(g, START + 50, 32, 0);

	unpin(self->pipe);
	EXPECT_PRESENT(NR_PAGES - NR + 2 + 4 + 8 + 16 + 1);
	usleep(SETTLE_US);
	EXPECT_EQ(NR_PAGES - NR + 31, nr_present(g));
	guest_expect(g, 0, START, VALUE);
	guest_expect(g, START, 2, VALUE + 1);
	guest_expect(g, START + 10, 20, 0);
	guest_expect(g, START + 30, 16, VALUE + 2);
	guest_expect(g, START + 46, NR - 47, 0);
	guest_expect(g, START + NR - 1, 1, VALUE + 3);
	guest_expect(g, START + NR, NR_PAGES - START - NR, VALUE);
}

/* An old hole takes nothing of what is there later, not even zeroes. */
TEST_F(unpin, leaves_what_was_punched_as_a_whole)
{
	struct gmem_vm *g = &self->g;

	punch(g, START, NR);
	unpin(self->pipe);
	punch(g, 0, PER_BLOCK);
	host_expect(g, 0, PER_BLOCK, 0);
	usleep(SETTLE_US);
	EXPECT_EQ(NR_PAGES, nr_present(g));
	EXPECT_EQ(self->huge + NR_BLOCKS, gmem_nr_huge());
}

TEST_F(unpin, waits_for_the_last_reference)
{
	struct gmem_vm *g = &self->g;
	uint64_t val;
	int other[2];

	punch(g, START, NR);
	pin(g, other, START + 50);
	unpin(self->pipe);
	usleep(SETTLE_US);
	EXPECT_EQ(NR_PAGES, nr_present(g));
	host_fill(g, START + 50, 1, VALUE + 1);
	ASSERT_EQ(sizeof(val), read(other[0], &val, sizeof(val)));
	EXPECT_EQ(VALUE + 1, val);
	unpin(other);
	EXPECT_PRESENT(NR_PAGES - NR + 1);
	host_expect(g, START + 50, 1, VALUE + 1);
}

/* Somebody else has split the folio, and a page of the hole is pinned. */
TEST_F(unpin, small_page_that_is_pinned)
{
	struct gmem_vm *g = &self->g;
	uint64_t val;
	int other[2];

	punch(g, START, NR);
	unpin(self->pipe);
	punch(g, START + NR, 1);
	pin(g, other, START + 50);
	EXPECT_PRESENT(NR_PAGES - NR - 1 + 1);
	usleep(SETTLE_US);
	host_fill(g, START + 50, 1, VALUE + 1);
	ASSERT_EQ(sizeof(val), read(other[0], &val, sizeof(val)));
	EXPECT_EQ(VALUE + 1, val);
	unpin(other);
	usleep(SETTLE_US);
	EXPECT_EQ(NR_PAGES - NR, nr_present(g));
	host_expect(g, START + 50, 1, VALUE + 1);
}

TEST_F(unpin, block_of_other_folios)
{
	struct gmem_vm *g = &self->g;

	punch(g, START, NR);
	/* What is not mapped is not split. */
	host_expect(g, 0, START, VALUE);
	unpin(self->pipe);
	split(g, 0, PER_BLOCK);
	EXPECT_EQ(self->huge + NR_BLOCKS - 1, gmem_nr_huge());
	EXPECT_PRESENT(NR_PAGES - NR);
	host_expect(g, 0, START, VALUE);
	host_expect(g, START + NR, NR_PAGES - START - NR, VALUE);
}

/* What comes next in the file need not come next in memory. */
TEST_F(unpin, other_folios_at_both_ends)
{
	const size_t size = 64 * PAGE_SIZE;
	struct gmem_vm *g = &self->g;
	void *mem = gmem_mmap(size);
	int at_start[2], at_end[2], elsewhere[2];

	unpin(self->pipe);
	split(g, 0, PER_BLOCK);
	EXPECT_EQ(self->huge + NR_BLOCKS - 1, gmem_nr_huge());
	punch(g, 8, 8);
	gmem_host_fill(mem, size, VALUE + 1);
	host_fill(g, 8, 8, VALUE);

	pin(g, at_start, 5);
	pin(g, at_end, 17);
	pin(g, elsewhere, 0);
	punch(g, 6, 12);
	EXPECT_EQ(NR_PAGES - 8, nr_present(g));
	gmem_host_expect(mem, size, VALUE + 1);
	host_expect(g, 0, 6, VALUE);
	host_expect(g, 18, NR_PAGES - 18, VALUE);
	host_expect(g, 6, 12, 0);

	punch(g, 8, 8);
	unpin(at_start);
	unpin(at_end);
	EXPECT_PRESENT(NR_PAGES - 12);
	unpin(elsewhere);
	munmap(mem, size);
}

/* The reference outlives all else.  The teardown counts pages. */
TEST_F(unpin, nobody_is_left)
{
	long pages = gmem_file_pages();

	punch(&self->g, START, NR);
	gmem_vm_free(&self->g);
	EXPECT_TRUE(gmem_pages_are(pages, -NR_PAGES));
	usleep(SETTLE_US);
	unpin(self->pipe);
}

TEST_F(unpin, memory_outlives_the_vm)
{
	struct gmem_vm *g = &self->g;
	void *mem = g->shared;
	int fd = g->fd;

	punch(g, START, NR);
	g->shared = NULL;
	g->fd = -1;
	gmem_vm_free(g);
	unpin(self->pipe);
	g->shared = mem;
	EXPECT_PRESENT(NR_PAGES - NR);
	host_expect(g, START + NR, NR_PAGES - START - NR, VALUE);
	munmap(mem, TEST_SIZE);
	close(fd);
}

/* Files go while their memory is being freed, or is about to be. */
TEST_F(unpin, file_ends_meanwhile)
{
	struct guest_random_state rng = new_guest_random_state(time(NULL));
	struct gmem_vm *g = &self->g, file[8];
	int i, round, pipes[ARRAY_SIZE(file)][2];

	unpin(self->pipe);
	for (round = 0; round < 4; round++) {
		for (i = 0; i < ARRAY_SIZE(file); i++) {
			file[i].fd = vm_create_guest_memfd(g->vm, TEST_SIZE,
							   GMEM_BOTH);
			file[i].shared = gmem_map(file[i].fd, TEST_SIZE);
			pin(&file[i], pipes[i], PINNED);
			punch(&file[i], START, NR);
			munmap(file[i].shared, TEST_SIZE);
		}
		for (i = 0; i < ARRAY_SIZE(file); i++)
			unpin(pipes[i]);
		usleep(400000);
		for (i = 0; i < ARRAY_SIZE(file); i++) {
			usleep(guest_random_u32(&rng) % 30000);
			close(file[i].fd);
		}
	}
}

/*
 * Races
 */

#define guest_global(vm, name) \
	((typeof(name) *)addr_gva2hva(vm, (vm_vaddr_t)&(name)))

static bool stop, guest_stop;
static uint64_t guest_wrong;

/* Count up in each page, from 0.  Return how often one did not hold its number. */
static uint64_t count_up(void *mem, uint64_t nr, bool *stop)
{
	uint64_t i, *p, pass, wrong = 0;

	for (pass = 0; !READ_ONCE(*stop); pass++) {
		for (i = 0; i < nr; i++) {
			p = mem + i * PAGE_SIZE;
			wrong += READ_ONCE(*p) != pass;
			WRITE_ONCE(*p, pass + 1);
		}
	}
	return wrong;
}

static void guest_count_up(uint64_t gpa, uint64_t nr)
{
	guest_wrong += count_up((void *)gpa, nr, &guest_stop);
	GUEST_UCALL_NONE();
}

static void *host_count_up(void *mem)
{
	return (void *)count_up(mem, NR / 4, &stop);
}

static void *run_vcpu(void *arg)
{
	TEST_ASSERT_EQ(__gmem_guest_end(arg), 0);
	return NULL;
}

/* Nothing is lost of what guest and host write while the rest is freed. */
TEST_F(unpin, written_meanwhile)
{
	struct guest_random_state rng = new_guest_random_state(time(NULL));
	uint64_t start = gmem_now_ms();
	struct gmem_vm *g = &self->g;
	pthread_t host, vcpu;
	void *wrong;
	int i;

	for (i = 0; gmem_race_goes_on(start, i, 5) || i < 2; i++) {
		if (i)
			pin(g, self->pipe, PINNED);
		punch(g, START, NR);
		WRITE_ONCE(stop, false);
		WRITE_ONCE(*guest_global(g->vm, guest_stop), false);
		gmem_guest_start(g, guest_count_up,
				 GMEM_GPA + START * PAGE_SIZE, NR / 4, 0, 0);
		vcpu = gmem_thread(run_vcpu, g);
		host = gmem_thread(host_count_up,
				   g->shared + (START + NR / 2) * PAGE_SIZE);

		usleep(guest_random_u32(&rng) % 500000);
		unpin(self->pipe);
		EXPECT_PRESENT(NR_PAGES - NR / 2);
		usleep(10000);

		WRITE_ONCE(stop, true);
		WRITE_ONCE(*guest_global(g->vm, guest_stop), true);
		pthread_join(vcpu, NULL);
		pthread_join(host, &wrong);
		ASSERT_EQ(0, (uintptr_t)wrong);
		ASSERT_EQ(0, READ_ONCE(*guest_global(g->vm, guest_wrong)));
		host_expect(g, START + NR, NR_PAGES - START - NR, VALUE);

		punch(g, 0, PER_BLOCK);
		host_fill(g, 0, PER_BLOCK, VALUE);
	}
	TH_LOG("%d rounds", i);
}

static uint64_t last[PER_BLOCK], nr_holes;

static void guest_write_and_check(void)
{
	gmem_guest_write_and_check(last, PER_BLOCK, &nr_holes, &guest_stop);
	GUEST_UCALL_NONE();
}

static void *pin_and_unpin(void *arg)
{
	struct guest_random_state rng = new_guest_random_state(time(NULL));
	struct gmem_vm *g = arg;
	int pipefd[2];

	while (!READ_ONCE(stop)) {
		pin(g, pipefd, guest_random_u32(&rng) % PER_BLOCK);
		usleep(guest_random_u32(&rng) % 1000);
		unpin(pipefd);
		/* At times long enough for the work to find nobody. */
		if (!(guest_random_u32(&rng) % 64))
			usleep(700000);
	}
	return NULL;
}

TEST_F(unpin, everything_at_once)
{
	struct guest_random_state rng = new_guest_random_state(time(NULL));
	uint64_t end = gmem_now_ms() + 4 * gmem_race_ms();
	struct gmem_vm *g = &self->g;
	pthread_t pinner, vcpu;
	long i, nr;

	unpin(self->pipe);
	punch(g, 0, PER_BLOCK);
	WRITE_ONCE(stop, false);
	WRITE_ONCE(*guest_global(g->vm, guest_stop), false);
	gmem_guest_start(g, guest_write_and_check, 0, 0, 0, 0);
	vcpu = gmem_thread(run_vcpu, g);
	pinner = gmem_thread(pin_and_unpin, g);

	while (gmem_now_ms() < end) {
		i = guest_random_u32(&rng) % PER_BLOCK;
		nr = 1 + guest_random_u32(&rng) % (PER_BLOCK - i);
		punch(g, i, nr);
		usleep(guest_random_u32(&rng) % 20000);
		if (!(guest_random_u32(&rng) % 8))
			punch(g, 0, PER_BLOCK);
	}

	WRITE_ONCE(stop, true);
	WRITE_ONCE(*guest_global(g->vm, guest_stop), true);
	pthread_join(vcpu, NULL);
	pthread_join(pinner, NULL);
	host_expect(g, PER_BLOCK, PER_BLOCK, VALUE);
	punch(g, 0, NR_PAGES);
	EXPECT_EQ(0, nr_present(g));
}

int main(int argc, char *argv[])
{
	gmem_require_mmap();
	TEST_REQUIRE(gmem_may_be_huge());
	return test_harness_run(argc, argv);
}
