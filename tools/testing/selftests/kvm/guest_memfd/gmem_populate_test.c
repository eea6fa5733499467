// SPDX-License-Identifier: GPL-2.0
/*
 * Populate, by way of the ownership model, which for software-protected VMs is
 * the one that calls it: contents that a guest's private memory begins with.
 */
#include <linux/userfaultfd.h>

#include "gmem_model_util.h"

#define NR	  600
#define HALF	  (NR / 2)
#define TEST_SIZE (1024 * PAGE_SIZE)

FIXTURE(populate)
{
	struct gmem_usage usage;
	struct gmem_vm g;
	void *src;
};

FIXTURE_SETUP(populate)
{
	gmem_usage_get(&self->usage);
	gmem_model_begin();
	gmem_vm_create(&self->g, TEST_SIZE);
	self->src = gmem_create_source(NR);
}

FIXTURE_TEARDOWN(populate)
{
	munmap(self->src, NR * PAGE_SIZE);
	gmem_vm_free(&self->g);
	gmem_model_end();
	gmem_usage_check(&self->usage);
}

TEST_F(populate, gives_pages_with_contents)
{
	struct gmem_vm *g = &self->g;

	gmem_pollute_free_memory();
	gmem_populate(g, 0, HALF, self->src);
	gmem_populate(g, HALF * PAGE_SIZE, NR - HALF, NULL);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_check_pages(g, 0, HALF, false);
	gmem_guest_expect(g, 8, PAGE_SIZE - 8, 0);
	gmem_guest_expect(g, HALF * PAGE_SIZE, (NR - HALF) * PAGE_SIZE, 0);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_MODEL(0, .assigned = NR, .reclaimed = NR, .freed = NR);
}

TEST_F(populate, fills_what_was_allocated)
{
	struct gmem_vm *g = &self->g;

	gmem_pollute_free_memory();
	gmem_allocate(g->fd, 0, TEST_SIZE);
	gmem_populate(g, 0, NR, self->src);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_check_pages(g, 0, NR, false);
}

/* A page that has contents keeps them, and what comes behind it stays empty. */
TEST_F(populate, overwrites_nothing)
{
	struct gmem_vm *g = &self->g;
	const uint64_t page = PAGE_SIZE;

	gmem_check_pages(g, 3, 1, true);
	EXPECT_EQ(ERANGE, __gmem_populate(g, 0, 8, self->src, -1));
	ASSERT_MODEL(4, .assigned = 4);
	EXPECT_EQ(EEXIST, __gmem_populate(g, 0, 8, self->src, -1));
	EXPECT_EQ(EEXIST, __gmem_populate(g, 3 * page, 1, self->src, -1));
	EXPECT_EQ(EEXIST, __gmem_populate(g, 3 * page, 1, NULL, -1));
	ASSERT_MODEL(4, .assigned = 4);
	gmem_check_pages(g, 0, 3, false);
	gmem_check_pages(g, 3, 5, true);
	ASSERT_MODEL(8, .assigned = 8);
	gmem_punch(g->fd, 0, 8 * page);
	ASSERT_MODEL(0, .assigned = 8, .reclaimed = 8, .freed = 8);
	EXPECT_EQ(0, __gmem_populate(g, 0, 8, self->src, -1));
	gmem_check_pages(g, 0, 8, false);
}

/* Page @at of @nr fails; what is done counts. */
static void populate_and_fail(struct gmem_vm *g, long nr, long at, void *src)
{
	TEST_ASSERT_EQ(__gmem_populate(g, 0, nr, src, at), at ? ERANGE : EIO);
	ASSERT_MODEL(at, .assigned = at + 1, .undone = 1);
}

TEST_F(populate, fails_half_way)
{
	struct gmem_vm *g = &self->g;
	const long at = HALF + 7;

	populate_and_fail(g, NR, at, self->src);

	/* Again: what is there is there. */
	EXPECT_EQ(EEXIST, __gmem_populate(g, 0, NR, self->src, -1));
	ASSERT_MODEL(at, .assigned = at + 1, .undone = 1);
	gmem_populate(g, at * PAGE_SIZE, NR - at,
		      self->src + at * PAGE_SIZE);
	ASSERT_MODEL(NR, .assigned = NR + 1, .undone = 1);
	gmem_check_pages(g, 0, NR, false);
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_MODEL(0, .assigned = NR + 1, .undone = 1, .reclaimed = NR,
		     .freed = NR);
}

TEST_F(populate, fails_at_the_first_page)
{
	struct gmem_vm *g = &self->g;

	populate_and_fail(g, NR, 0, self->src);

	/* The guest finds a page of zeroes, not what the failure left. */
	gmem_guest_expect(g, 0, PAGE_SIZE, 0);
	ASSERT_MODEL(1, .assigned = 2, .undone = 1);
	gmem_vm_free(g);
	ASSERT_MODEL(0, .assigned = 2, .undone = 1, .reclaimed = 1, .freed = 1);
}

TEST_F(populate, fails_half_way_then_hole)
{
	struct gmem_vm *g = &self->g;

	populate_and_fail(g, NR, 100, self->src);
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_MODEL(0, .assigned = 101, .undone = 1, .reclaimed = 100,
		     .freed = 100);
}

TEST_F(populate, fails_half_way_then_descriptor)
{
	struct gmem_vm *g = &self->g;

	populate_and_fail(g, NR, 100, self->src);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_vm_close_fd(g);
	ASSERT_MODEL(0, .assigned = 101, .undone = 1, .reclaimed = 100,
		     .freed = 100);
}

TEST_F(populate, fails_half_way_then_vm)
{
	struct gmem_vm *g = &self->g;
	int fd;

	populate_and_fail(g, NR, 100, self->src);
	fd = gmem_vm_free_keep_fd(g);
	ASSERT_MODEL(100, .assigned = 101, .undone = 1);
	close(fd);
	ASSERT_MODEL(0, .assigned = 101, .undone = 1, .reclaimed = 100,
		     .freed = 100);
}

TEST_F(populate, needs_private_memory)
{
	struct gmem_vm *g = &self->g;

	vm_mem_set_shared(g->vm, GMEM_GPA + 4 * PAGE_SIZE, PAGE_SIZE);
	EXPECT_EQ(EINVAL, __gmem_populate(g, 4 * PAGE_SIZE, 1, self->src, -1));
	EXPECT_EQ(EINVAL, __gmem_populate(g, 4 * PAGE_SIZE, 8, self->src, -1));
	ASSERT_MODEL(0);
	EXPECT_EQ(ERANGE, __gmem_populate(g, 0, 8, self->src, -1));
	ASSERT_MODEL(4, .assigned = 4);
	EXPECT_EQ(EINVAL, __gmem_populate(g, SZ_1G, 1, self->src, -1));
	gmem_delete_slot(g->vm, GMEM_SLOT);
	EXPECT_EQ(EINVAL, __gmem_populate(g, 8 * PAGE_SIZE, 1, self->src, -1));
	ASSERT_MODEL(4, .assigned = 4);
}

TEST_F(populate, ends_with_the_slot)
{
	struct gmem_vm *g = &self->g;

	EXPECT_EQ(ERANGE, __gmem_populate(g, TEST_SIZE - 4 * PAGE_SIZE, 8,
					  self->src, -1));
	ASSERT_MODEL(4, .assigned = 4);
}

TEST_F(populate, source_must_be_readable)
{
	struct gmem_vm *g = &self->g;

	EXPECT_EQ(EFAULT, __gmem_populate(g, 0, 8, (void *)PAGE_SIZE, -1));
	ASSERT_MODEL(0);
	ASSERT_EQ(0, munmap(self->src + 5 * PAGE_SIZE, PAGE_SIZE));
	EXPECT_EQ(ERANGE, __gmem_populate(g, 0, 8, self->src, -1));
	ASSERT_MODEL(5, .assigned = 5);
	gmem_check_pages(g, 0, 5, false);
}

TEST_F(populate, needs_an_active_view)
{
	struct gmem_vm *g = &self->g, other;

	gmem_vm_create_other(&other, g, 0);
	EXPECT_EQ(EPERM, __gmem_populate(&other, 0, 8, self->src, -1));
	gmem_vm_free(&other);

	gmem_vm_create_other(&other, g, KVM_LINK_GUEST_MEMFD_SHARE |
				 KVM_LINK_GUEST_MEMFD_READONLY);
	EXPECT_EQ(EPERM, __gmem_populate(&other, 0, 8, self->src, -1));
	gmem_vm_free(&other);
	ASSERT_MODEL(0);
}

/*
 * The source's second page is missing, and whoever handles that takes their
 * time.  Meanwhile all other use of the file goes on.
 */
#define NR_UFFD 3

static int create_uffd(void *mem)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)mem, .len = PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	TEST_ASSERT(fd >= 0, "userfaultfd() failed, see CONFIG_USERFAULTFD");
	TEST_ASSERT(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API failed");
	TEST_ASSERT(!ioctl(fd, UFFDIO_REGISTER, &reg),
		    "UFFDIO_REGISTER failed");
	return fd;
}

static void wait_for_missing_page(int uffd, void *mem)
{
	struct uffd_msg msg;

	TEST_ASSERT_EQ(read(uffd, &msg, sizeof(msg)), (ssize_t)sizeof(msg));
	TEST_ASSERT_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	TEST_ASSERT_EQ(msg.arg.pagefault.address, (uintptr_t)mem);
}

static void bring_missing_page(int uffd, void *mem, void *contents)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)mem,
		.src = (uintptr_t)contents,
		.len = PAGE_SIZE,
	};

	TEST_ASSERT(!ioctl(uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY failed");
}

struct populater {
	struct gmem_vm *g;
	void *src;
	int err;
	bool done;
};

static void *run_populate(void *arg)
{
	struct populater *p = arg;

	p->err = __gmem_populate(p->g, 0, NR_UFFD, p->src, -1);
	WRITE_ONCE(p->done, true);
	return NULL;
}

TEST_F(populate, waits_for_its_source_without_the_file)
{
	struct gmem_vm *g = &self->g;
	struct populater p = { .g = g, .src = self->src };
	void *missing = self->src + PAGE_SIZE, *page = gmem_mmap(PAGE_SIZE);
	pthread_t thread;
	int uffd;

	memcpy(page, missing, PAGE_SIZE);
	madvise(missing, PAGE_SIZE, MADV_DONTNEED);
	uffd = create_uffd(missing);
	thread = gmem_thread(run_populate, &p);
	wait_for_missing_page(uffd, missing);

	/* Where it was, where it waits, and elsewhere; by all that have locks */
	gmem_punch(g->fd, 0, PAGE_SIZE);
	gmem_punch(g->fd, PAGE_SIZE, PAGE_SIZE);
	gmem_allocate(g->fd, 0, TEST_SIZE);
	gmem_check_pages(g, 0, 1, true);
	gmem_check_pages(g, NR - 1, 1, true);
	gmem_punch(g->fd, 2 * PAGE_SIZE, TEST_SIZE - 2 * PAGE_SIZE);
	ASSERT_FALSE(READ_ONCE(p.done));
	ASSERT_MODEL(1, .assigned = 3, .reclaimed = 2, .freed = 2);

	bring_missing_page(uffd, missing, page);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, p.err);
	ASSERT_MODEL(3, .assigned = 5, .reclaimed = 2, .freed = 2);
	gmem_check_pages(g, 0, 1, true);
	gmem_check_pages(g, 1, NR_UFFD - 1, false);
	close(uffd);
	munmap(page, PAGE_SIZE);
}

/* It does not wait if it is killed. */
TEST_F(populate, is_killed_while_it_waits)
{
	void *missing = self->src + PAGE_SIZE;
	struct gmem_vm g;
	pid_t pid;
	int i;

	for (i = 1; i <= 3; i++) {
		pid = gmem_fork();
		if (!pid) {
			madvise(missing, PAGE_SIZE, MADV_DONTNEED);
			create_uffd(missing);
			gmem_vm_create(&g, TEST_SIZE);
			__gmem_populate(&g, 0, NR_UFFD, self->src, -1);
			_exit(1);
		}
		while (gmem_transition("assigned") < i)
			usleep(1000);
		usleep(50000);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		ASSERT_MODEL(0, .assigned = i, .reclaimed = i, .freed = i);
	}
}

/*
 * Populate, faults, prefaults and holes at the same time
 */

#define NR_RACE	   16
#define RACE_WORD  0x0ddba11ull
#define MIN_ROUNDS 20

struct race {
	struct gmem_vm *g;
	void *src;
	bool stop;
	long populated, existed, holes;
};

static void *populate_all_the_time(void *arg)
{
	struct guest_random_state rng = new_guest_random_state(2);
	struct race *race = arg;
	long page, err;

	while (!READ_ONCE(race->stop)) {
		page = guest_random_u32(&rng) % NR_RACE;
		err = __gmem_populate(race->g, page * PAGE_SIZE, 1, race->src,
				      guest_random_u32(&rng) % 8 ? -1 : 0);
		TEST_ASSERT(!err || err == EEXIST || err == EIO,
			    "populate: %s", strerror(err));
		race->populated += !err;
		race->existed += err == EEXIST;
	}
	return NULL;
}

static void *punch_all_the_time(void *arg)
{
	struct guest_random_state rng = new_guest_random_state(3);
	struct race *race = arg;
	long page;

	while (!READ_ONCE(race->stop)) {
		page = guest_random_u32(&rng) % NR_RACE;
		gmem_punch(race->g->fd, page * PAGE_SIZE, PAGE_SIZE);
		race->holes++;
		if (guest_random_bool(&rng))
			usleep(200);
	}
	return NULL;
}

static uint64_t nr_zero, nr_word;

/*
 * Each page is all zero, or all source.  One that may be replaced while it is
 * read is so word by word.
 */
static void guest_check_race(uint64_t punched)
{
	uint64_t *p, first, word, i, j;

	for (i = 0; i < NR_RACE; i++) {
		p = (void *)(GMEM_GPA + i * PAGE_SIZE);
		first = READ_ONCE(p[0]);
		for (j = 0; j < PAGE_SIZE / sizeof(*p); j++) {
			word = READ_ONCE(p[j]);
			__GUEST_ASSERT(!word || word == RACE_WORD,
				       "word %lu of page %lu is 0x%lx", j, i,
				       word);
			__GUEST_ASSERT(punched || word == first,
				       "page %lu begins with 0x%lx, has 0x%lx",
				       i, first, word);
		}
		if (first)
			nr_word++;
		else
			nr_zero++;
	}
	GUEST_UCALL_NONE();
}

static void check_race(struct gmem_vm *g, bool punched)
{
	TEST_ASSERT_EQ(__gmem_guest_run(g, guest_check_race, punched, 0, 0, 0),
		       0);
}

TEST_F(populate, races_with_faults_and_holes)
{
	struct gmem_vm *g = &self->g;
	struct race race = { .g = g, .src = self->src };
	uint64_t start = gmem_now_ms();
	struct gmem_transitions t;
	pthread_t populater, puncher;
	int i, rounds;

	for (i = 0; i < PAGE_SIZE / 8; i++)
		((uint64_t *)self->src)[i] = RACE_WORD;
	gmem_pollute_free_memory();

	populater = gmem_thread(populate_all_the_time, &race);
	puncher = gmem_thread(punch_all_the_time, &race);
	/* A slow guest may find nothing but holes for long. */
	for (rounds = 0; gmem_race_goes_on(start, rounds, MIN_ROUNDS) ||
	     (!nr_word && gmem_now_ms() < start + 20000); rounds++) {
		__gmem_pre_fault(g->vcpu, GMEM_GPA + (rounds % NR_RACE) *
				 PAGE_SIZE, PAGE_SIZE, 0, NULL);
		check_race(g, true);
		sync_global_from_guest(g->vm, nr_word);
	}
	WRITE_ONCE(race.stop, true);
	pthread_join(puncher, NULL);
	pthread_join(populater, NULL);
	check_race(g, false);

	sync_global_from_guest(g->vm, nr_zero);
	sync_global_from_guest(g->vm, nr_word);
	TH_LOG("%d rounds: %ld pages populated, %ld existed, %ld holes",
	       rounds, race.populated, race.existed, race.holes);
	TH_LOG("the guest saw %lu pages of zeroes, %lu of the source",
	       nr_zero, nr_word);
	if (rounds >= MIN_ROUNDS) {
		EXPECT_LT(0, race.populated);
		EXPECT_LT(0, race.existed);
		EXPECT_LT(0, nr_zero);
		EXPECT_LT(0, nr_word);
	}

	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_model_settle(0);
	t = gmem_get_transitions();
	ASSERT_MODEL(0, .assigned = t.assigned, .undone = t.undone,
		     .reclaimed = t.assigned - t.undone,
		     .freed = t.assigned - t.undone);
}

/* Nobody punches: the first to come decides about a page, for good. */
TEST_F(populate, races_with_faults)
{
	struct gmem_vm *g = &self->g;
	struct race race = { .g = g, .src = self->src };
	uint64_t start = gmem_now_ms();
	pthread_t populater;
	int i, rounds;

	for (i = 0; i < PAGE_SIZE / 8; i++)
		((uint64_t *)self->src)[i] = RACE_WORD;
	gmem_pollute_free_memory();

	for (rounds = 0; gmem_race_goes_on(start, rounds, MIN_ROUNDS);
	     rounds++) {
		race.stop = false;
		populater = gmem_thread(populate_all_the_time, &race);
		__gmem_pre_fault(g->vcpu, GMEM_GPA + (rounds % NR_RACE) *
				 PAGE_SIZE, 2 * PAGE_SIZE, 0, NULL);
		check_race(g, false);
		WRITE_ONCE(race.stop, true);
		pthread_join(populater, NULL);
		check_race(g, false);
		gmem_punch(g->fd, 0, TEST_SIZE);
	}
	sync_global_from_guest(g->vm, nr_zero);
	sync_global_from_guest(g->vm, nr_word);
	TH_LOG("%d rounds, %ld pages populated", rounds, race.populated);
	if (rounds >= MIN_ROUNDS) {
		EXPECT_LT(0, nr_zero);
		EXPECT_LT(0, race.populated);
	}
}

int main(int argc, char *argv[])
{
	gmem_require_model();
	return test_harness_run(argc, argv);
}
