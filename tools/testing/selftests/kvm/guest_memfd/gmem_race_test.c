// SPDX-License-Identifier: GPL-2.0
/*
 * What one guest has, under what its VMM and others do at the same time: private
 * and shared memory change places, the mappings behind the shared half come and
 * go, the VMM runs out of memory or is killed, others punch holes, and slots and
 * descriptors are renewed.  Guests, and hosts for what is shared, keep account of
 * every word.
 */
#include "gmem_board_util.h"
#include "gmem_cgroup_util.h"
#include "gmem_race_util.h"

static bool stop;

/*
 * Private and shared memory change places
 */

#define FLIP_PAGES MAX_PAGES

/* Memory that huge pages may back, or may not */
static void *map_aligned(size_t size, bool huge)
{
	void *mem = gmem_mmap(size + SZ_2M);
	void *start = (void *)align_up((uintptr_t)mem, SZ_2M);

	munmap(mem, start - mem);
	munmap(start + size, mem + SZ_2M - start);
	madvise(start, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return start;
}

/* A thread of the host to which the pages [first, end) belong */
struct flipper {
	struct area *a;
	struct guest_random_state rng;
	long first, end;
	int flips, holes;
	pthread_t thread;
};

static long random_below(struct guest_random_state *rng, long n)
{
	return guest_random_u32(rng) % n;
}

/* Small ranges, large ones, and those that begin or end with a huge page */
static void pick_range(struct guest_random_state *rng, long first, long end,
		       long *start, long *nr)
{
	long len = end - first;

	*start = first + random_below(rng, len);
	switch (random_below(rng, 5)) {
	case 0:
		*nr = 1;
		break;
	case 1:
		*nr = 1 + random_below(rng, 64);
		break;
	case 2:
		*nr = 1 + random_below(rng, len);
		break;
	case 3:
		*start = align_down(*start, NR_HUGE);
		*nr = NR_HUGE + random_below(rng, 3) - 1;
		break;
	case 4:
		/* Across the edge */
		*start = align_up(*start, NR_HUGE) - random_below(rng, 8);
		*nr = 1 + random_below(rng, 16);
		break;
	}
	*start = min(max(*start, first), end - 1);
	*nr = min(*nr, end - *start);
}

/* The vCPU's word in the shared half, of which it accounts for all. */
static uint64_t shared_word(struct area *a, long page, int id)
{
	uint64_t *words = a->g.shared + page * PAGE_SIZE;

	return READ_ONCE(words[id]);
}

/* Nobody writes to the shared half of what is private. */
static void check_shared_half(struct area *a, long page, long us)
{
	uint64_t before[NR_VCPUS], next;
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		before[i] = shared_word(a, page, i);
	usleep(us);
	for (i = 0; i < NR_VCPUS; i++) {
		/* A vCPU may not have got to noting what it did. */
		next = READ_ONCE(a->b->words[i][page].next[1]);
		TEST_ASSERT(shared_word(a, page, i) == before[i] &&
			    before[i] - next <= 1,
			    "shared half of private page %ld: 0x%lx, 0x%lx, for vCPU %d 0x%lx",
			    page, before[i], shared_word(a, page, i), i, next);
	}
}

static void flip_range(struct flipper *f, long start, long nr, bool shared)
{
	struct area *a = f->a;
	long i;

	change_pages(a->b, start, nr);
	for (i = start; i < start + nr; i++)
		WRITE_ONCE(a->b->pages[i].shared, shared);
	if (!random_below(&f->rng, 8)) {
		note_holes(a->b, start, nr);
		gmem_punch(a->g.fd, start * PAGE_SIZE, nr * PAGE_SIZE);
		f->holes++;
	}
	vm_set_memory_attributes(a->g.vm, GMEM_GPA + start * PAGE_SIZE,
				 nr * PAGE_SIZE,
				 shared ? 0 : KVM_MEMORY_ATTRIBUTE_PRIVATE);
	change_pages(a->b, start, nr);
}

static void *run_flipper(void *arg)
{
	struct flipper *f = arg;
	struct board *b = f->a->b;
	long start, nr, edge;

	while (!READ_ONCE(stop)) {
		pick_range(&f->rng, f->first, f->end, &start, &nr);
		edge = random_below(&f->rng, 2) ? start : start + nr - 1;

		/* Have the edge mapped as what it will not be any more. */
		WRITE_ONCE(b->hot, edge);
		usleep(random_below(&f->rng, 400));
		flip_range(f, start, nr, !b->pages[edge].shared);
		if (b->pages[edge].shared)
			usleep(random_below(&f->rng, 400));
		else
			check_shared_half(f->a, edge,
					  random_below(&f->rng, 400));
		f->flips++;
	}
	return NULL;
}

static void flip_prepare(struct area *a)
{
	uint64_t *words;
	int i, id;

	for (i = 0; i < a->nr_pages; i++) {
		a->b->pages[i].shared = true;
		a->b->pages[i].may_fault = true;
		words = a->g.shared + i * PAGE_SIZE;
		for (id = 0; id < NR_VCPUS; id++) {
			words[id] = SHARED_BIT;
			a->b->words[id][i].next[1] = SHARED_BIT;
		}
	}
}

/* All that vCPUs have written is there, in both halves. */
static void flip_check(struct area *a, struct flipper *f)
{
	long i;
	int id;

	for (i = 0; i < a->nr_pages; i++) {
		for (id = 0; id < NR_VCPUS; id++)
			TEST_ASSERT_EQ(shared_word(a, i, id),
				       a->b->words[id][i].next[1]);
	}
	flip_range(f, 0, a->nr_pages, true);
	for (id = 0; id < NR_VCPUS; id++)
		walk_pass(a, id);
	flip_range(f, 0, a->nr_pages, false);
	for (id = 0; id < NR_VCPUS; id++)
		walk_pass(a, id);
}

static void flip_attributes(struct __test_metadata *_metadata, bool huge)
{
	const long border = NR_HUGE + NR_HUGE / 4;
	struct board *b = board_create();
	struct flipper flippers[2] = {
		{ .first = 0, .end = border },
		{ .first = border, .end = FLIP_PAGES },
	};
	uint64_t start, nr_2m = 0;
	struct area a;
	int i;

	area_create(&a, b, FLIP_PAGES,
		    map_aligned(FLIP_PAGES * PAGE_SIZE, huge));
	flip_prepare(&a);
	area_start(&a);
	/* Once all is flipped about, a huge page is rarely of one kind. */
	start = gmem_now_ms();
	while (huge && !nr_2m && gmem_now_ms() < start + 1000)
		nr_2m = vm_get_stat(a.g.vm, "pages_2m");
	for (i = 0; i < ARRAY_SIZE(flippers); i++) {
		flippers[i].a = &a;
		flippers[i].rng = new_guest_random_state(time(NULL) + i);
		flippers[i].thread = gmem_thread(run_flipper, &flippers[i]);
	}
	start = gmem_now_ms();
	while (gmem_race_goes_on(start, READ_ONCE(flippers[0].flips),
				 MIN_ROUNDS)) {
		nr_2m = max(nr_2m, vm_get_stat(a.g.vm, "pages_2m"));
		usleep(10000);
	}
	WRITE_ONCE(stop, true);
	for (i = 0; i < ARRAY_SIZE(flippers); i++)
		pthread_join(flippers[i].thread, NULL);
	area_stop(&a);
	flip_check(&a, &flippers[0]);

	LOG_AREA(&a);
	TH_LOG("%d + %d flips, %d + %d with holes, up to %lu huge pages",
	       flippers[0].flips, flippers[1].flips, flippers[0].holes,
	       flippers[1].holes, nr_2m);
	if (flippers[0].flips >= MIN_ROUNDS) {
		EXPECT_LT(0, b->unstable[0] + b->unstable[1]);
		EXPECT_LT(FLIP_PAGES, b->steps[0] + b->steps[1]);
		EXPECT_LE(huge, nr_2m);
	}
	gmem_vm_free(&a.g);
	board_free(b);
}

TEST_F(race, attributes_flip)
{
	flip_attributes(_metadata, false);
}

TEST_F(race, attributes_flip_over_huge_pages)
{
	if (access("/sys/kernel/mm/transparent_hugepage", F_OK))
		SKIP(return, "no huge pages");

	flip_attributes(_metadata, true);
}

/*
 * The mappings behind the shared half come and go
 */

#define STORM_PAGES 256

struct storm {
	struct area *a;
	int rounds;
	pthread_t thread;
};

/* Shared are 8 pages of 16. */
static bool storm_is_shared(long page)
{
	return page & 8;
}

/* The start, or the end, of a change of what is shared */
static void storm_change(struct board *b, long start, long nr, bool holes)
{
	long i;

	for (i = start; i < start + nr; i++) {
		if (!storm_is_shared(i))
			continue;
		change_page(&b->pages[i]);
		if (holes)
			note_holes(b, i, 1);
	}
}

static void storm_drop(struct storm *s, long start, long nr, bool remap)
{
	void *mem = s->a->g.shared + start * PAGE_SIZE;
	size_t size = nr * PAGE_SIZE;

	storm_change(s->a->b, start, nr, true);
	if (remap)
		TEST_ASSERT(mmap(mem, size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
				 MAP_FIXED, -1, 0) == mem, "mmap() failed");
	else
		madvise(mem, size, MADV_DONTNEED);
	storm_change(s->a->b, start, nr, false);
}

/* What is not there fails, and is the same when it is back. */
static void storm_hide(struct storm *s, long start, long nr, bool move)
{
	void *mem = s->a->g.shared + start * PAGE_SIZE, *away;
	size_t size = nr * PAGE_SIZE;

	mprotect(mem, size, move ? PROT_NONE : PROT_READ);
	if (move) {
		away = mremap(mem, size, size,
			      MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
		TEST_ASSERT(away != MAP_FAILED, "mremap() failed");
		away = mremap(away, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			      mem);
		TEST_ASSERT(away == mem, "mremap() back failed");
	}
	mprotect(mem, size, PROT_READ | PROT_WRITE);
}

static void *run_storm(void *arg)
{
	struct guest_random_state rng = new_guest_random_state(time(NULL));
	struct storm *s = arg;
	long start, nr;

	while (!READ_ONCE(stop)) {
		start = random_below(&rng, STORM_PAGES);
		nr = 1 + random_below(&rng, STORM_PAGES - start);
		WRITE_ONCE(s->a->b->hot, start);
		switch (s->rounds++ % 4) {
		case 0:
			storm_drop(s, start, nr, false);
			break;
		case 1:
			storm_drop(s, start, nr, true);
			break;
		case 2:
			storm_hide(s, start, nr, false);
			break;
		case 3:
			/* One page is one mapping, which mremap() wants. */
			storm_hide(s, start, 1, true);
			break;
		}
	}
	return NULL;
}

/*
 * What is private has nothing to do with that: no access fails, all gets on, and
 * nothing is lost.  What is shared is what the mapping has.
 */
TEST_F(race, mappings_of_the_shared_half_come_and_go)
{
	struct board *b = board_create();
	struct area a;
	struct storm s = { .a = &a };
	uint64_t start;
	long i;

	area_create(&a, b, STORM_PAGES, gmem_mmap(STORM_PAGES * PAGE_SIZE));
	for (i = 0; i < STORM_PAGES; i++) {
		b->pages[i].may_fault = storm_is_shared(i);
		if (!storm_is_shared(i))
			vm_mem_set_private(a.g.vm, GMEM_GPA + i * PAGE_SIZE,
					   PAGE_SIZE);
	}
	for (i = 0; i < NR_VCPUS; i++)
		a.walkers[i].any_fault = true;

	s.thread = gmem_thread(run_storm, &s);
	area_start(&a);
	start = gmem_now_ms();
	while (gmem_race_goes_on(start, min(READ_ONCE(b->steps[0]),
					    READ_ONCE(b->steps[1])),
				 4 * STORM_PAGES))
		usleep(10000);
	/* Faults, which make stress delays, did not use up the time. */
	for (i = 0; i < NR_VCPUS; i++)
		EXPECT_LT(STORM_PAGES / 16, READ_ONCE(b->steps[i]));
	WRITE_ONCE(stop, true);
	pthread_join(s.thread, NULL);
	area_stop(&a);
	for (i = 0; i < NR_VCPUS; i++)
		walk_pass(&a, i);

	TH_LOG("%d changes", s.rounds);
	LOG_AREA(&a);
	if (s.rounds >= MIN_ROUNDS) {
		EXPECT_LT(0, b->zeroed[0] + b->zeroed[1]);
		EXPECT_LT(0, a.walkers[0].faults + a.walkers[1].faults);
	}
	gmem_vm_free(&a.g);
	board_free(b);
}

/*
 * The VMM runs out of memory
 */

#define GREEDY_SIZE  SZ_64M
#define GREEDY_LIMIT SZ_4M
#define CHARGE_NOISE SZ_32K	/* found when nothing is left */

enum greed { BY_ALL, BY_FALLOCATE, BY_GUEST, BY_ATTRIBUTES, NR_GREEDS };

/* Of the cgroup, in bytes */
static long charge(void)
{
	return gmem_read_long(gmem_cgroup_file("memory.current"), "");
}

static void *greedy_guest(void *arg)
{
	for (;;)
		__gmem_guest_fill(arg, TEST_SIZE, GREEDY_SIZE - TEST_SIZE, 1);
	return NULL;
}

static void *greedy_allocation(void *arg)
{
	struct gmem_vm *g = arg;

	for (;;)
		__gmem_allocate(g->fd, 0, GREEDY_SIZE);
	return NULL;
}

static void *greedy_attributes(void *arg)
{
	uint64_t gpa = GMEM_GPA + SZ_1G;
	struct gmem_vm *g = arg;

	for (;; gpa += 2 * PAGE_SIZE)
		__gmem_set_attributes(g->vm, gpa, PAGE_SIZE,
				      KVM_MEMORY_ATTRIBUTE_PRIVATE, 0);
	return NULL;
}

static void be_greedy(int sock, enum greed by)
{
	struct gmem_vm g;

	gmem_vm_create(&g, GREEDY_SIZE);
	gmem_guest_fill(&g, 0, TEST_SIZE, PATTERN);
	gmem_cgroup_enter();
	/* Ranges of attributes alone would take long. */
	if (by == BY_ATTRIBUTES)
		gmem_allocate(g.fd, TEST_SIZE, GREEDY_LIMIT -
			      align_up(charge(), PAGE_SIZE) - SZ_512K);
	gmem_send_fd(sock, g.fd);
	if (by == BY_GUEST || by == BY_ALL)
		gmem_thread(greedy_guest, &g);
	if (by == BY_FALLOCATE || by == BY_ALL)
		gmem_thread(greedy_allocation, &g);
	if (by == BY_ATTRIBUTES || by == BY_ALL)
		gmem_thread(greedy_attributes, &g);
	for (;;)
		pause();
}

/* The bytes that nobody has and the cgroup, which is empty, goes on paying for */
static long charge_left(void)
{
	uint64_t end = gmem_now_ms() + 5000;

	do {
		usleep(20000);
		/* Makes CPUs give back what they have paid for in advance. */
		gmem_cgroup_limit("0");
	} while (charge() > CHARGE_NOISE && gmem_now_ms() < end);
	return charge();
}

/*
 * Whatever it is at when it is killed for its memory, nothing of the VMM is left
 * but the memory that another VM has, too, and that is whole.
 */
TEST_F(race, vmm_runs_out_of_memory)
{
	struct gmem_vm *w = &self->witness;
	int sock[2], fd, status, looks = 0, rounds = 0;
	long kills[NR_GREEDS] = {}, killed = 0, now;
	struct gmem_usage before;
	uint64_t start;
	enum greed by;
	pid_t pid;

	if (!gmem_cgroup_can())
		SKIP(return, "mount cgroup2 with the memory controller");

	gmem_cgroup_create();
	gmem_cgroup_limit("4M");
	gmem_usage_get(&before);
	start = gmem_now_ms();
	while (gmem_race_goes_on(start, rounds, NR_GREEDS)) {
		by = rounds++ % NR_GREEDS;
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
		pid = gmem_fork();
		if (!pid)
			be_greedy(sock[1], by);
		close(sock[1]);
		fd = gmem_receive_fd(sock[0]);
		do {
			witness_expect(w, fd);
			looks++;
			usleep(1000);
		} while (!waitpid(pid, &status, WNOHANG));
		ASSERT_EQ(SIGKILL, status);
		now = gmem_cgroup_event("oom_kill ");
		kills[by] += now > killed;
		killed = now;

		witness_expect(w, fd);
		gmem_punch(fd, 0, TEST_SIZE);
		close(fd);
		close(sock[0]);
		gmem_usage_check(&before);
	}
	EXPECT_EQ(rounds, killed);
	EXPECT_GE(CHARGE_NOISE, charge_left());
	EXPECT_EQ(0, __gmem_cgroup_remove());
	TH_LOG("%d rounds, %d looks; killed in all %ld, fallocate %ld, guest %ld, attributes %ld",
	       rounds, looks, kills[BY_ALL], kills[BY_FALLOCATE],
	       kills[BY_GUEST], kills[BY_ATTRIBUTES]);
}

/*
 * The memory is another process's, too, and the VMM is killed
 */

struct meddler {
	struct board *b;
	struct gmem_vm *witness;
	int fd;
	bool stop;
	int holes, links;
};

static void be_owner(int sock, struct board *b)
{
	struct area a;

	area_create(&a, b, NR_PAGES, gmem_mmap(TEST_SIZE));
	vm_mem_set_private(a.g.vm, GMEM_GPA, TEST_SIZE);
	gmem_send_fd(sock, a.g.fd);
	area_start(&a);
	for (;;)
		pause();
}

static void run_meddle(void *arg)
{
	struct guest_random_state rng = new_guest_random_state(time(NULL));
	struct meddler *m = arg;
	long start, nr;

	while (!READ_ONCE(m->stop)) {
		start = random_below(&rng, NR_PAGES);
		nr = 1 + random_below(&rng, NR_PAGES - start);
		WRITE_ONCE(m->b->hot, start);
		usleep(random_below(&rng, 200));
		change_pages(m->b, start, nr);
		note_holes(m->b, start, nr);
		gmem_punch(m->fd, start * PAGE_SIZE, nr * PAGE_SIZE);
		change_pages(m->b, start, nr);
		if (random_below(&rng, 2))
			gmem_allocate(m->fd, start * PAGE_SIZE, PAGE_SIZE);
		m->holes++;
	}
}

/* No word is larger than the number of visits. */
static void run_links(void *arg)
{
	struct meddler *m = arg;
	int i;

	while (!READ_ONCE(m->stop)) {
		witness_bind(m->witness, m->fd);
		look(m->witness);
		for (i = 0; i < NR_PAGES; i++)
			TEST_ASSERT(seen[i] <= READ_ONCE(m->b->steps[0]) + 1,
				    "page %d holds 0x%lx", i, seen[i]);
		witness_unbind(m->witness);
		m->links++;
	}
}

/*
 * What is in the memory when the owner is dead, and nobody does anything, is what
 * its vCPU left there or 0 if a hole came after that; and the vCPU may have died
 * between a visit and its note of it.
 */
static void check_legacy(struct board *b)
{
	struct word_model *m;
	uint64_t next;
	bool zero;
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		m = &b->words[0][i];
		zero = m->sure && m->holes != b->pages[i].holes;
		next = zero ? 0 : m->next[0];
		TEST_ASSERT(seen[i] - next <= 1 || (!m->sure && seen[i] <= 1),
			    "page %d holds 0x%lx, not 0x%lx", i, seen[i], next);
	}
}

/* The receiver is the heir: it may see, have, change and drop the memory. */
static void inherit(struct gmem_vm *w, struct board *b, int fd)
{
	uint64_t before[NR_PAGES];
	int i;

	witness_bind(w, fd);
	look(w);
	check_legacy(b);
	memcpy(before, seen, sizeof(seen));
	witness_unbind(w);

	w->fd = gmem_link(w->vm, fd, 0);
	gmem_vm_bind(w);
	look(w);
	TEST_ASSERT(!memcmp(before, seen, sizeof(seen)),
		    "the memory changed after the end of its VM");
	gmem_punch(fd, 0, TEST_SIZE / 2);
	gmem_punch(w->fd, TEST_SIZE / 2, TEST_SIZE / 2);
	look(w);
	for (i = 0; i < NR_PAGES; i++)
		TEST_ASSERT_EQ(seen[i], 0);
	gmem_allocate(fd, 0, TEST_SIZE);
	gmem_guest_fill(w, 0, TEST_SIZE, PATTERN);
	gmem_guest_expect(w, 0, TEST_SIZE, PATTERN);
	witness_unbind(w);
}

static void wait_for_steps(struct board *b)
{
	uint64_t end = gmem_now_ms() + 20000;

	while (READ_ONCE(b->steps[0]) < 2 * NR_PAGES) {
		TEST_ASSERT(gmem_now_ms() < end, "the guest does not run");
		usleep(1000);
	}
}

TEST_F(race, receiver_meddles_and_the_owner_is_killed)
{
	struct meddler m = { .b = board_create(), .witness = &self->witness };
	struct gmem_usage before;
	uint64_t zeroed = 0;
	struct race race;
	int sock[2], status;
	pid_t pid;

	gmem_usage_get(&before);
	race_init(&race);
	while (race_goes_on(&race)) {
		memset(m.b, 0, sizeof(*m.b));
		m.stop = false;
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
		pid = gmem_fork();
		if (!pid)
			be_owner(sock[1], m.b);
		close(sock[1]);
		m.fd = gmem_receive_fd(sock[0]);
		race_add(&race, run_meddle, &m);
		race_add(&race, run_links, &m);
		race_start(&race);
		wait_for_steps(m.b);
		usleep(random_below(&race.rng, 20000));
		kill(pid, SIGKILL);
		if (race.rounds % 2)
			WRITE_ONCE(m.stop, true);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(SIGKILL, status);
		usleep(random_below(&race.rng, 2000));
		WRITE_ONCE(m.stop, true);
		race_join(&race);

		zeroed += m.b->zeroed[0] + m.b->zeroed[1];
		inherit(&self->witness, m.b, m.fd);
		close(m.fd);
		close(sock[0]);
		gmem_usage_check(&before);
	}
	TH_LOG("%d rounds, %d holes, %d links, vCPUs found %lu zeroes",
	       race.rounds, m.holes, m.links, zeroed);
	EXPECT_SEEN(&race, zeroed);
	EXPECT_SEEN(&race, m.links);
	board_free(m.b);
}

/*
 * Descriptors and slots are renewed
 */

#define NR_FDS	   6
#define NR_SLOTS   MAX_SLOTS
#define SLOT_PAGES 6

struct pool {
	int fds[NR_FDS];
	int sock[2];
	int renewals;
};

static void pool_put(struct pool *p, int i, int fd)
{
	int old = __atomic_exchange_n(&p->fds[i], fd, __ATOMIC_SEQ_CST);

	if (old >= 0)
		close(old);
}

/* For a moment the memory has no descriptor but the one in the socket. */
static void pool_renew(struct pool *p, int from, long us)
{
	int i, fd;

	gmem_send_fd(p->sock[1], p->fds[from]);
	for (i = 0; i < NR_FDS; i++)
		pool_put(p, i, -1);
	usleep(us);
	fd = gmem_receive_fd(p->sock[0]);
	for (i = 0; i < NR_FDS; i++)
		pool_put(p, i, dup(fd));
	close(fd);
	p->renewals++;
}

static void *churn_fds(void *arg)
{
	struct guest_random_state rng = new_guest_random_state(time(NULL));
	struct pool *p = arg;
	int from, to;

	while (!READ_ONCE(stop)) {
		from = random_below(&rng, NR_FDS);
		to = random_below(&rng, NR_FDS);
		switch (random_below(&rng, 3)) {
		case 0:
			pool_put(p, to, dup(p->fds[from]));
			break;
		case 1:
			gmem_send_fd(p->sock[1], p->fds[from]);
			pool_put(p, to, gmem_receive_fd(p->sock[0]));
			break;
		case 2:
			pool_renew(p, from, random_below(&rng, 200));
			break;
		}
		usleep(random_below(&rng, 200));
	}
	return NULL;
}

/* Each page of the file tells its number; see that slots have the right ones. */
static void guest_read_slots(void)
{
	struct board *b = GUEST_BOARD;
	uint64_t i, slot, val;
	uint32_t seq, first;

	while (!READ_ONCE(b->stop)) {
		i = b->steps[0]++ % (NR_SLOTS * SLOT_PAGES);
		slot = i / SLOT_PAGES;
		WRITE_ONCE(b->at[0], i);
		seq = __atomic_load_n(&b->slots[slot].seq, __ATOMIC_SEQ_CST);
		first = READ_ONCE(b->slots[slot].first);
		val = READ_ONCE(*(uint64_t *)(GMEM_GPA + i * PAGE_SIZE));
		__GUEST_ASSERT(val - PATTERN < NR_PAGES, "gfn %lu holds 0x%lx",
			       i, val);
		if (seq & 1 ||
		    __atomic_load_n(&b->slots[slot].seq, __ATOMIC_SEQ_CST) != seq)
			b->unstable[0]++;
		else
			GUEST_ASSERT_EQ(val, PATTERN + first + i % SLOT_PAGES);
	}
	GUEST_UCALL_NONE();
}

struct binder {
	struct guest_random_state rng;
	struct gmem_vm *w;
	struct board *b;
	struct pool *p;
	int binds, overlaps, closed;
};

/* With any descriptor, which may be closed by then */
static int __bind_slot(struct binder *d, int slot, long first)
{
	const uint64_t offset = slot * SLOT_PAGES * PAGE_SIZE;
	int fd = READ_ONCE(d->p->fds[random_below(&d->rng, NR_FDS)]);

	return __gmem_set_slot(d->w->vm, BOARD_SLOT + 1 + slot,
			       KVM_MEM_GUEST_MEMFD, GMEM_GPA + offset,
			       SLOT_PAGES * PAGE_SIZE, d->w->shared + offset,
			       fd, first * PAGE_SIZE);
}

/* Has another slot one of the pages? */
static bool overlaps(struct binder *d, int slot, long first)
{
	int i;

	for (i = 0; i < NR_SLOTS; i++) {
		if (i != slot &&
		    labs((long)d->b->slots[i].first - first) < SLOT_PAGES)
			return true;
	}
	return false;
}

/* Somewhere, or next to another slot, or one page off that */
static long pick_first(struct binder *d)
{
	long first = random_below(&d->rng, NR_PAGES);

	if (random_below(&d->rng, 4)) {
		first = d->b->slots[random_below(&d->rng, NR_SLOTS)].first;
		first += random_below(&d->rng, 2) ? SLOT_PAGES : -SLOT_PAGES;
		first += random_below(&d->rng, 3) - 1;
	}
	return min(max(first, 0L), (long)NR_PAGES - SLOT_PAGES);
}

static void renew_slot(struct binder *d, int slot)
{
	long old = d->b->slots[slot].first, first;
	int err, tries = 0;

	__atomic_add_fetch(&d->b->slots[slot].seq, 1, __ATOMIC_SEQ_CST);
	gmem_delete_slot(d->w->vm, BOARD_SLOT + 1 + slot);
	do {
		/* There may be no other place. */
		first = tries++ < 4 ? pick_first(d) : old;
		while ((err = __bind_slot(d, slot, first)) == EBADF) {
			d->closed++;
			usleep(20);
		}
		TEST_ASSERT(err == (overlaps(d, slot, first) ? EEXIST : 0),
			    "slot %d at page %ld: %s", slot, first,
			    strerror(err));
		d->overlaps += !!err;
	} while (err);
	WRITE_ONCE(d->b->slots[slot].first, first);
	__atomic_add_fetch(&d->b->slots[slot].seq, 1, __ATOMIC_SEQ_CST);
	d->binds++;
}

static void pool_create(struct pool *p, struct gmem_vm *w)
{
	int i, fd = vm_create_guest_memfd(w->vm, TEST_SIZE, 0);

	/* For the time of this, bind all of it. */
	w->fd = fd;
	gmem_vm_bind(w);
	for (i = 0; i < NR_PAGES; i++)
		gmem_guest_fill(w, i * PAGE_SIZE, PAGE_SIZE, PATTERN + i);
	gmem_delete_slot(w->vm, GMEM_SLOT);
	w->fd = -1;

	for (i = 0; i < NR_FDS; i++)
		p->fds[i] = dup(fd);
	close(fd);
	TEST_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, p->sock),
		    "socketpair() failed");
}

static void pool_free(struct pool *p)
{
	int i;

	for (i = 0; i < NR_FDS; i++)
		close(p->fds[i]);
	for (i = 0; i < ARRAY_SIZE(p->sock); i++)
		close(p->sock[i]);
}

TEST_F(race, descriptors_and_slots_are_renewed)
{
	struct board *b = board_create();
	struct pool p = {};
	struct walker w = { .g = self->witness, .b = b };
	struct binder d = {
		.rng = new_guest_random_state(time(NULL)),
		.w = &w.g,
		.b = b,
		.p = &p,
	};
	pthread_t churn;
	uint64_t start;
	int i;

	board_bind(b, w.g.vm);
	pool_create(&p, &w.g);
	for (i = 0; i < NR_SLOTS * SLOT_PAGES; i++)
		b->pages[i].may_fault = true;
	for (i = 0; i < NR_SLOTS; i++) {
		b->slots[i].first = i * SLOT_PAGES;
		ASSERT_EQ(0, __bind_slot(&d, i, i * SLOT_PAGES));
	}

	churn = gmem_thread(churn_fds, &p);
	walk_start(&w, guest_read_slots, 0);
	start = gmem_now_ms();
	while (gmem_race_goes_on(start, d.binds, MIN_ROUNDS)) {
		renew_slot(&d, random_below(&d.rng, NR_SLOTS));
		usleep(random_below(&d.rng, 1000));
	}
	WRITE_ONCE(b->stop, true);
	pthread_join(w.thread, NULL);
	WRITE_ONCE(stop, true);
	pthread_join(churn, NULL);

	TH_LOG("%d binds, %d overlaps, %d closed descriptors, %d renewals",
	       d.binds, d.overlaps, d.closed, p.renewals);
	TH_LOG("the vCPU read %lu pages, %lu in a change, and failed %ld times",
	       b->steps[0], b->unstable[0], w.faults);
	if (d.binds >= MIN_ROUNDS) {
		EXPECT_LT(0, d.overlaps);
		EXPECT_LT(0, d.closed);
		EXPECT_LT(0, p.renewals);
		EXPECT_LT(0, b->unstable[0] + w.faults);
	}
	for (i = 0; i < NR_SLOTS; i++)
		gmem_delete_slot(w.g.vm, BOARD_SLOT + 1 + i);
	pool_free(&p);
	gmem_delete_slot(w.g.vm, BOARD_SLOT);
	board_free(b);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 0));
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	return test_harness_run(argc, argv);
}
