// SPDX-License-Identifier: GPL-2.0
/*
 * FALLOC_FL_PUNCH_HOLE under a running guest: what is punched reads as zero at
 * once, what is not stays, and a page that was freed is never seen again.
 */
#include "gmem_mmap_util.h"

#define NR_PAGES  1024
#define TEST_SIZE (NR_PAGES * PAGE_SIZE)

FIXTURE(punch)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(punch)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(punch)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

/* Where the host sees a global of the guest */
#define guest_global(vm, name) \
	((typeof(name) *)addr_gva2hva(vm, (vm_vaddr_t)&(name)))

TEST_F(punch, hole_reads_as_zero_and_its_neighbours_stay)
{
	static const struct {
		uint64_t start, nr;
	} holes[] = {
		{ 0, 1 }, { 7, 1 }, { 63, 2 }, { 100, 412 }, { 511, 2 },
		{ NR_PAGES - 1, 1 }, { 0, NR_PAGES },
	};
	struct gmem_vm *g = &self->g;
	uint64_t offset, size;
	int i;

	for (i = 0; i < ARRAY_SIZE(holes); i++) {
		offset = holes[i].start * PAGE_SIZE;
		size = holes[i].nr * PAGE_SIZE;
		gmem_guest_fill(g, 0, TEST_SIZE, 0x1234);
		gmem_punch(g->fd, offset, size);
		gmem_guest_expect(g, 0, offset, 0x1234);
		gmem_guest_expect(g, offset, size, 0);
		gmem_guest_expect(g, offset + size, TEST_SIZE - offset - size,
				  0x1234);
	}
}

TEST_F(punch, hole_frees_the_memory)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();

	gmem_guest_fill(g, 0, TEST_SIZE, 1);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	gmem_punch(g->fd, 0, TEST_SIZE / 2);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_punch(g->fd, 0, 4 * TEST_SIZE);
	EXPECT_TRUE(gmem_pages_are(base, 0));
}

/* What is there stays, the first page and the last as well; all else is added. */
TEST_F(punch, fallocate_fills_the_holes)
{
	static const struct {
		uint64_t start, nr;
	} holes[] = {
		{ 0, 1 }, { 1, 1 }, { 5, 3 }, { 63, 2 }, { 510, 4 },
		{ NR_PAGES - 1, 1 },
	};
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();
	int i, round;

	gmem_guest_fill(g, 0, TEST_SIZE, 0x1234);
	for (round = 0; round < 2; round++) {
		for (i = round; i < ARRAY_SIZE(holes); i += 2)
			gmem_punch(g->fd, holes[i].start * PAGE_SIZE,
				   holes[i].nr * PAGE_SIZE);
		gmem_allocate(g->fd, 0, PAGE_SIZE);
		gmem_allocate(g->fd, 0, TEST_SIZE);
		EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	}

	gmem_guest_expect(g, 0, 2 * PAGE_SIZE, 0);
	gmem_guest_expect(g, 2 * PAGE_SIZE, 3 * PAGE_SIZE, 0x1234);
	gmem_guest_expect(g, 5 * PAGE_SIZE, 3 * PAGE_SIZE, 0);
	gmem_guest_expect(g, 8 * PAGE_SIZE, 55 * PAGE_SIZE, 0x1234);
}

/* A shared page has the same guest address, but not the same memory. */
TEST_F(punch, hole_does_not_touch_shared_memory)
{
	struct gmem_vm *g = &self->g;

	vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE / 2);
	gmem_guest_fill(g, 0, TEST_SIZE, 0x5678);
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_guest_expect(g, 0, TEST_SIZE / 2, 0x5678);
	gmem_guest_expect(g, TEST_SIZE / 2, TEST_SIZE / 2, 0);
}

static void *run_vcpu(void *arg)
{
	struct kvm_vcpu *vcpu = arg;
	struct ucall uc;

	vcpu_run(vcpu);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_DONE);
	return NULL;
}

/* The rounds that host and guest have completed; both start the next at once. */
static uint64_t host_round, guest_round;
static bool guest_stop;

/* Fill the memory, have the host punch it away, and find it zero. */
static void guest_take_turns(void)
{
	uint64_t *p, *end = (void *)(GMEM_GPA + TEST_SIZE);
	uint64_t i;

	for (i = 1; !READ_ONCE(guest_stop); i++) {
		for (p = (void *)GMEM_GPA; p < end; p += PAGE_SIZE / sizeof(*p))
			WRITE_ONCE(*p, i);
		WRITE_ONCE(guest_round, i);
		while (READ_ONCE(host_round) != i)
			cpu_relax();
		for (p = (void *)GMEM_GPA; p < end; p += PAGE_SIZE / sizeof(*p))
			GUEST_ASSERT_EQ(READ_ONCE(*p), 0);
	}
	GUEST_DONE();
}

TEST_F(punch, running_guest_sees_zero_at_once)
{
	struct gmem_vm *g = &self->g;
	uint64_t *theirs = guest_global(g->vm, guest_round);
	uint64_t *ours = guest_global(g->vm, host_round);
	uint64_t start, i = 0;
	pthread_t thread;
	bool done;

	vcpu_arch_set_entry_point(g->vcpu, guest_take_turns);
	thread = gmem_thread(run_vcpu, g->vcpu);
	start = gmem_now_ms();
	do {
		i++;
		while (READ_ONCE(*theirs) != i)
			sched_yield();
		gmem_punch(g->fd, 0, TEST_SIZE);
		done = !gmem_race_goes_on(start, i, 8);
		WRITE_ONCE(*guest_global(g->vm, guest_stop), done);
		WRITE_ONCE(*ours, i);
	} while (!done);
	pthread_join(thread, NULL);
	TH_LOG("%ld rounds", i);
}

/* What the guest wrote last, and how often it found 0 instead */
static uint64_t last[NR_PAGES], nr_holes;

static void guest_write_and_check(void)
{
	gmem_guest_write_and_check(last, NR_PAGES, &nr_holes, &guest_stop);
	GUEST_DONE();
}

static bool stop_churn;

/* Take freed pages and leave a pattern in them. */
static void *churn_memory(void *arg)
{
	void *mem;

	while (!READ_ONCE(stop_churn)) {
		mem = gmem_mmap(SZ_8M);
		memset(mem, 0x5a, SZ_8M);
		munmap(mem, SZ_8M);
	}
	return NULL;
}

TEST_F(punch, running_guest_sees_zero_or_its_own)
{
	struct guest_random_state rng = new_guest_random_state(1);
	struct gmem_vm *g = &self->g;
	uint64_t *holes = guest_global(g->vm, nr_holes);
	pthread_t vcpu, churn;
	uint64_t begin, start, nr;
	int i;

	vcpu_arch_set_entry_point(g->vcpu, guest_write_and_check);
	vcpu = gmem_thread(run_vcpu, g->vcpu);
	churn = gmem_thread(churn_memory, NULL);

	begin = gmem_now_ms();
	/* A slow guest needs longer to come across a hole. */
	for (i = 0; gmem_race_goes_on(begin, READ_ONCE(*holes), 1); i++) {
		start = guest_random_u32(&rng) % NR_PAGES;
		nr = 1 + guest_random_u32(&rng) % 64;
		nr = min(nr, NR_PAGES - start);
		gmem_punch(g->fd, start * PAGE_SIZE, nr * PAGE_SIZE);
		if (guest_random_bool(&rng))
			gmem_allocate(g->fd, start * PAGE_SIZE, PAGE_SIZE);
	}
	WRITE_ONCE(*guest_global(g->vm, guest_stop), true);
	pthread_join(vcpu, NULL);
	WRITE_ONCE(stop_churn, true);
	pthread_join(churn, NULL);
	TH_LOG("%d holes, the guest found %lu", i, *holes);
}

/*
 * Two memslots: the guest has a page of the first; the second one takes long to
 * zap, as it has all page tables, and nothing in them.
 */
#define EMPTY_GPA  (2ull * GMEM_GPA)
#define EMPTY_SIZE (1ull * SZ_1G)

static void bind_empty(struct gmem_vm *g, void *mem, uint64_t flags)
{
	int fd = vm_create_guest_memfd(g->vm, EMPTY_SIZE + PAGE_SIZE, flags);
	uint64_t offset;

	/* No huge pages, for want of alignment */
	gmem_set_slot(g->vm, GMEM_SLOT + 1, KVM_MEM_GUEST_MEMFD, EMPTY_GPA,
		      EMPTY_SIZE, mem, fd, PAGE_SIZE);
	if (!flags)
		vm_mem_set_private(g->vm, EMPTY_GPA, EMPTY_SIZE);
	for (offset = 0; offset < EMPTY_SIZE; offset += SZ_2M)
		TEST_ASSERT_EQ(__gmem_pre_fault(g->vcpu, EMPTY_GPA + offset,
						PAGE_SIZE, 0, NULL), 0);
	gmem_punch(fd, 0, EMPTY_SIZE + PAGE_SIZE);
	close(fd);
}

#define MARK 0x6d61726bull

static uint64_t written;

/* Write to the first page for as long as it is the same one. */
static void guest_write_to_one_page(void)
{
	uint64_t *words = (void *)GMEM_GPA, i = 0;

	WRITE_ONCE(words[1], MARK);
	while (READ_ONCE(words[1]) == MARK) {
		WRITE_ONCE(words[0], ++i);
		WRITE_ONCE(written, i);
	}
	GUEST_UCALL_NONE();
}

static void *run_writer(void *arg)
{
	kvm_pin_this_task_to_pcpu(1);
	TEST_ASSERT_EQ(__gmem_guest_end(arg), 0);
	return NULL;
}

/*
 * @zap, a thread's function, zaps the page first, and is at work on the other
 * memslot when the hole is punched, which finds no mapping of the page any more.
 * The guest must not have one either, in its TLB.
 */
static int punch_between_zaps(struct __test_metadata *_metadata,
			      struct gmem_vm *g, void *(*zap)(void *))
{
	uint64_t *theirs = guest_global(g->vm, written);
	uint64_t start = gmem_now_ms(), before;
	pthread_t vcpu, zapper;
	int i;

	kvm_pin_this_task_to_pcpu(0);
	for (i = 0; gmem_race_goes_on(start, i, 10) || i < 5; i++) {
		WRITE_ONCE(*theirs, 0);
		gmem_guest_start(g, guest_write_to_one_page, 0, 0, 0, 0);
		vcpu = gmem_thread(run_writer, g);
		while (READ_ONCE(*theirs) < 1000)
			usleep(100);

		zapper = gmem_thread(zap, g);
		usleep((1 + i % 5) * 2000);
		gmem_punch(g->fd, 0, PAGE_SIZE);
		before = READ_ONCE(*theirs);
		gmem_spin_us(20000);
		/* One may have been written, and not yet been counted. */
		EXPECT_GE(before + 1, READ_ONCE(*theirs));
		pthread_join(zapper, NULL);
		pthread_join(vcpu, NULL);
	}
	return i;
}

static void *convert_both(void *arg)
{
	const uint64_t size = EMPTY_GPA + EMPTY_SIZE - GMEM_GPA;
	struct gmem_vm *g = arg;

	vm_mem_set_shared(g->vm, GMEM_GPA, size);
	vm_mem_set_private(g->vm, GMEM_GPA, size);
	return NULL;
}

TEST_F(punch, hole_comes_in_between_a_conversion_of_two_slots)
{
	struct gmem_vm *g = &self->g;
	void *mem;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "needs two CPUs");

	mem = gmem_mmap(EMPTY_SIZE);
	bind_empty(g, mem, 0);
	TH_LOG("%d rounds", punch_between_zaps(_metadata, g, convert_both));
	munmap(mem, EMPTY_SIZE);
}

/* Of both slots: it does not matter what is there. */
static void *user_memory;

static void *discard_both(void *arg)
{
	TEST_ASSERT(!madvise(user_memory, TEST_SIZE + EMPTY_SIZE,
			     MADV_DONTNEED), "madvise() failed");
	return NULL;
}

/* KVM's own zap, in a notifier */
TEST_F(punch, hole_comes_in_between_a_notice_to_two_slots)
{
	struct gmem_vm g;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "needs two CPUs");

	gmem_plain_create(&g, TEST_SIZE);
	user_memory = gmem_mmap(TEST_SIZE + EMPTY_SIZE);
	gmem_delete_slot(g.vm, GMEM_SLOT);
	gmem_set_slot(g.vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, TEST_SIZE,
		      user_memory, g.fd, 0);
	bind_empty(&g, user_memory + TEST_SIZE,
		   GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
	TH_LOG("%d rounds", punch_between_zaps(_metadata, &g, discard_both));
	gmem_vm_free(&g);
	munmap(user_memory, TEST_SIZE + EMPTY_SIZE);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
