// SPDX-License-Identifier: GPL-2.0
/*
 * Host mappings under load: host and guests use the same pages at the same time,
 * while holes are punched, mappings and views come and go, and processes and VMs
 * end.  Nobody ever sees a page that is not in the file any more.
 */
#include <sys/uio.h>

#include "gmem_mmap_util.h"
#include "gmem_poison_util.h"
#include "gmem_race_util.h"

FIXTURE(mmap_race)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(mmap_race)
{
	gmem_usage_get(&self->usage);
	gmem_plain_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(mmap_race)
{
	wait_for_freeing(0);
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

/* Where the host sees a global of the guest */
#define guest_global(vm, name) \
	((typeof(name) *)addr_gva2hva(vm, (vm_vaddr_t)&(name)))

static bool stop;

static void *run_vcpu(void *arg)
{
	struct gmem_vm *g = arg;
	int err = __gmem_guest_end(g);

	TEST_ASSERT(!err, "guest: %s", strerror(err));
	return NULL;
}

/* Take freed pages and leave a pattern in them. */
static void *churn_memory(void *arg)
{
	void *mem;

	while (!READ_ONCE(stop)) {
		mem = gmem_mmap(SZ_1M);
		memset(mem, 0x5a, SZ_1M);
		munmap(mem, SZ_1M);
		usleep(100);
	}
	return NULL;
}

/*
 * Coherence
 */

#define NR_MESSAGES 400

/*
 * Page 0 has the number of the last message and that of the last answer, pages
 * 1 to 3 the messages, 4 to 6 the answers.
 */
#define MESSAGE_OFFSET PAGE_SIZE
#define ANSWER_OFFSET  (4 * PAGE_SIZE)
#define MESSAGE_WORDS  (3 * PAGE_SIZE / 8)
#define MESSAGE_STEP   61

static void guest_answer(uint64_t gpa, uint64_t nr)
{
	uint64_t *turn = (void *)gpa;
	uint64_t *message = (void *)(gpa + MESSAGE_OFFSET);
	uint64_t *answer = (void *)(gpa + ANSWER_OFFSET);
	uint64_t i, j;

	for (i = 1; i <= nr; i++) {
		while (__atomic_load_n(&turn[0], __ATOMIC_ACQUIRE) != i)
			cpu_relax();
		for (j = i % MESSAGE_STEP; j < MESSAGE_WORDS; j += MESSAGE_STEP)
			GUEST_ASSERT_EQ(READ_ONCE(message[j]), i + j);
		for (j = i % MESSAGE_STEP; j < MESSAGE_WORDS; j += MESSAGE_STEP)
			WRITE_ONCE(answer[j], ~(i + j));
		__atomic_store_n(&turn[1], i, __ATOMIC_RELEASE);
	}
	GUEST_UCALL_NONE();
}

/* Whatever does not change what is in the memory */
static void *disturb_mapping(void *arg)
{
	struct gmem_vm *g = arg;
	void *mem;
	int i;

	for (i = 0; !READ_ONCE(stop); i++) {
		switch (i % 5) {
		case 0:
			madvise(g->shared, TEST_SIZE, MADV_DONTNEED);
			break;
		case 1:
			madvise(g->shared, TEST_SIZE, MADV_PAGEOUT);
			break;
		case 2:
			mprotect(g->shared + TEST_SIZE / 2, TEST_SIZE / 2,
				 PROT_READ);
			mprotect(g->shared + TEST_SIZE / 2, TEST_SIZE / 2,
				 PROT_READ | PROT_WRITE);
			break;
		case 3:
			mem = gmem_map(g->fd, TEST_SIZE);
			madvise(mem, TEST_SIZE, MADV_POPULATE_WRITE);
			munmap(mem, TEST_SIZE);
			break;
		case 4:
			/* What nobody uses */
			gmem_punch(g->fd, TEST_SIZE / 2, TEST_SIZE / 2);
			break;
		}
		usleep(200);
	}
	return NULL;
}

TEST_F(mmap_race, messages_to_and_fro)
{
	struct gmem_vm *g = &self->g;
	uint64_t *turn = g->shared;
	uint64_t *message = g->shared + MESSAGE_OFFSET;
	uint64_t *answer = g->shared + ANSWER_OFFSET;
	pthread_t vcpu, load[2];
	uint64_t i, j;

	gmem_guest_start(g, guest_answer, GMEM_GPA, NR_MESSAGES, 0, 0);
	vcpu = gmem_thread(run_vcpu, g);
	load[0] = gmem_thread(disturb_mapping, g);
	load[1] = gmem_thread(churn_memory, NULL);
	for (i = 1; i <= NR_MESSAGES; i++) {
		for (j = i % MESSAGE_STEP; j < MESSAGE_WORDS; j += MESSAGE_STEP)
			WRITE_ONCE(message[j], i + j);
		__atomic_store_n(&turn[0], i, __ATOMIC_RELEASE);
		while (__atomic_load_n(&turn[1], __ATOMIC_ACQUIRE) != i)
			sched_yield();
		for (j = i % MESSAGE_STEP; j < MESSAGE_WORDS; j += MESSAGE_STEP)
			ASSERT_EQ(~(i + j), READ_ONCE(answer[j]));
	}
	pthread_join(vcpu, NULL);
	WRITE_ONCE(stop, true);
	for (i = 0; i < ARRAY_SIZE(load); i++)
		pthread_join(load[i], NULL);
}

#define NR_ADDS 20000

static void guest_add(uint64_t gpa, uint64_t nr)
{
	uint64_t i;

	for (i = 0; i < nr; i++)
		__atomic_add_fetch((uint64_t *)gpa, 1, __ATOMIC_SEQ_CST);
	GUEST_UCALL_NONE();
}

static void *host_add(void *arg)
{
	int i;

	for (i = 0; i < NR_ADDS; i++)
		__atomic_add_fetch((uint64_t *)arg, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

TEST_F(mmap_race, atomic_additions_of_all_add_up)
{
	struct gmem_vm *g = &self->g, b;
	pthread_t threads[4], load;
	int i;

	gmem_plain_create_linked(&b, TEST_SIZE, g->fd,
				 KVM_LINK_GUEST_MEMFD_SHARE);
	gmem_guest_start(g, guest_add, GMEM_GPA, NR_ADDS, 0, 0);
	gmem_guest_start(&b, guest_add, GMEM_GPA, NR_ADDS, 0, 0);
	load = gmem_thread(disturb_mapping, g);
	threads[0] = gmem_thread(run_vcpu, g);
	threads[1] = gmem_thread(run_vcpu, &b);
	threads[2] = gmem_thread(host_add, g->shared);
	threads[3] = gmem_thread(host_add, b.shared);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	WRITE_ONCE(stop, true);
	pthread_join(load, NULL);
	gmem_guest_expect(g, 0, 8, 4 * NR_ADDS);
	gmem_host_expect(b.shared, 8, 4 * NR_ADDS);
	gmem_vm_free(&b);
}

/*
 * Holes
 */

/* What the guest wrote last, and how often it found 0 instead */
static uint64_t last[NR_PAGES], nr_holes;
static bool guest_stop;

static void guest_write_and_check(void)
{
	gmem_guest_write_and_check(last, NR_PAGES, &nr_holes, &guest_stop);
	GUEST_UCALL_NONE();
}

struct reader {
	struct gmem_vm *g;
	uint64_t nr, nr_zero;
	bool pages;		/* by get_user_pages() */
};

static uint64_t read_by_pages(void *addr)
{
	uint64_t val = 0xbad;
	struct iovec local = { &val, sizeof(val) };
	struct iovec remote = { addr, sizeof(val) };

	TEST_ASSERT_EQ(process_vm_readv(getpid(), &local, 1, &remote, 1, 0),
		       (long)sizeof(val));
	return val;
}

/* What is not zero is of this page, and no older than what was seen before. */
static void *read_and_check(void *arg)
{
	uint64_t max[NR_PAGES] = {}, i, val;
	struct reader *r = arg;
	void *addr;

	while (!READ_ONCE(stop)) {
		for (i = 0; i < NR_PAGES; i++) {
			addr = r->g->shared + i * PAGE_SIZE;
			val = r->pages ? read_by_pages(addr) :
					 READ_ONCE(*(uint64_t *)addr);
			r->nr++;
			r->nr_zero += !val;
			if (!val)
				continue;
			TEST_ASSERT(val % NR_PAGES == i && val >= max[i],
				    "page %lu holds 0x%lx after 0x%lx", i, val,
				    max[i]);
			max[i] = val;
		}
		/* Leave some time to the others. */
		usleep(200);
	}
	return NULL;
}

TEST_F(mmap_race, holes_under_host_readers_and_a_vcpu)
{
	struct guest_random_state rng = new_guest_random_state(1);
	struct gmem_vm *g = &self->g;
	struct reader readers[2] = {
		{ .g = g },
		{ .g = g, .pages = true },
	};
	uint64_t end, now, i, nr, page, old, val;
	uint64_t *last_seen = *guest_global(g->vm, last);
	uint64_t *found = guest_global(g->vm, nr_holes);
	pthread_t vcpu, threads[3];
	int punched = 0, kept = 0;

	gmem_guest_start(g, guest_write_and_check, 0, 0, 0, 0);
	vcpu = gmem_thread(run_vcpu, g);
	threads[0] = gmem_thread(read_and_check, &readers[0]);
	threads[1] = gmem_thread(read_and_check, &readers[1]);
	threads[2] = gmem_thread(churn_memory, NULL);
	end = gmem_now_ms() + 2 * gmem_race_ms();
	/* A slow guest may need longer to come by a hole at all. */
	while ((now = gmem_now_ms()) < (READ_ONCE(*found) ? end : end + 20000)) {
		page = guest_random_u32(&rng) % NR_PAGES;
		nr = 1 + guest_random_u32(&rng) % (NR_PAGES - page);
		old = READ_ONCE(*(uint64_t *)(g->shared + page * PAGE_SIZE));
		gmem_punch(g->fd, page * PAGE_SIZE, nr * PAGE_SIZE);

		/* Nothing of before is seen any more. */
		val = READ_ONCE(*(uint64_t *)(g->shared + page * PAGE_SIZE));
		ASSERT_TRUE(!val || val > old)
			TH_LOG("page %lu held 0x%lx, and after the hole 0x%lx",
			       page, old, val);
		punched++;
		usleep(guest_random_u32(&rng) % 1000 + (now < end ? 0 : 300000));
	}

	/* What is written after the last hole stays. */
	usleep(20000);
	WRITE_ONCE(*guest_global(g->vm, guest_stop), true);
	pthread_join(vcpu, NULL);
	WRITE_ONCE(stop, true);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < NR_PAGES; i++) {
		val = READ_ONCE(*(uint64_t *)(g->shared + i * PAGE_SIZE));
		ASSERT_TRUE(!val || val == last_seen[i]);
		kept += !!val;
	}
	EXPECT_LT(0, kept);
	EXPECT_LT(0, *found);
	TH_LOG("%d holes, the guest found %lu, readers %lu of %lu and %lu of %lu",
	       punched, *found, readers[0].nr_zero,
	       readers[0].nr, readers[1].nr_zero, readers[1].nr);
}

/*
 * The page that is punched while it goes into a pipe is the one that was there,
 * or the zeroes after it; and the file has zeroes.
 */
static void run_punch_all(void *arg)
{
	struct gmem_vm *g = arg;

	gmem_punch(g->fd, 0, TEST_SIZE);
}

TEST_F(mmap_race, pins_and_holes)
{
	static uint64_t buf[8 * PAGE_SIZE / sizeof(uint64_t)];
	struct gmem_vm *g = &self->g;
	struct iovec iov = { g->shared, sizeof(buf) };
	int i, p[2], zeroes = 0;
	struct race race;
	uint64_t val;

	ASSERT_EQ(0, pipe(p));
	ASSERT_LE(iov.iov_len, fcntl(p[1], F_SETPIPE_SZ, iov.iov_len));
	race_init(&race);
	while (race_goes_on(&race)) {
		gmem_host_fill(g->shared, TEST_SIZE, PATTERN);
		race_add(&race, run_punch_all, g);
		race_start(&race);
		ASSERT_EQ(iov.iov_len, vmsplice(p[1], &iov, 1, 0));
		race_join(&race);
		gmem_host_expect(g->shared, TEST_SIZE, 0);
		gmem_host_fill(g->shared, TEST_SIZE, 0xbad);
		gmem_punch(g->fd, 0, TEST_SIZE);

		ASSERT_EQ(iov.iov_len, read(p[0], buf, iov.iov_len));
		zeroes = 0;
		for (i = 0; i < iov.iov_len / PAGE_SIZE; i++) {
			/* The page after the hole is the file's: see above. */
			val = buf[i * PAGE_SIZE / 8];
			ASSERT_TRUE(val == PATTERN || val == 0xbad)
				TH_LOG("page %d holds 0x%lx", i, val);
			gmem_host_expect(buf + i * PAGE_SIZE / 8, PAGE_SIZE,
					 val);
			zeroes += val == 0xbad;
		}
		race_was_first(&race, !zeroes);
	}
	LOG_RACE(&race, "pins first");
	EXPECT_BOTH_ORDERS(&race);
	close(p[0]);
	close(p[1]);
}

/*
 * Mappings come and go
 */

struct mapper {
	int fd;
	uint64_t pattern;
	int nr;
	bool stop;
};

/* Map, read, leave it to munmap(), in all sizes. */
static void *map_and_check(void *arg)
{
	struct mapper *m = arg;
	size_t size;
	void *mem;

	while (!READ_ONCE(m->stop)) {
		size = (1 + m->nr % NR_PAGES) * PAGE_SIZE;
		mem = gmem_map(m->fd, size);
		gmem_host_expect(mem, size, m->pattern);
		munmap(mem, size);
		m->nr++;
	}
	return NULL;
}

/*
 * A VM ends in all its ways (descriptor, slot, vCPU) while its memory is mapped,
 * unmapped and touched: the memory is not its, but the file's.
 */
TEST_F(mmap_race, vm_ends_under_mappings)
{
	struct mapper m = { .pattern = PATTERN };
	struct gmem_vm vm;
	pthread_t threads[2];
	struct race race;
	int i, min = INT_MAX;

	race_init(&race);
	while (race_goes_on(&race)) {
		gmem_plain_create(&vm, TEST_SIZE);
		gmem_guest_fill(&vm, 0, TEST_SIZE, PATTERN);
		m.fd = dup(vm.fd);
		m.nr = 0;
		m.stop = false;
		for (i = 0; i < ARRAY_SIZE(threads); i++)
			threads[i] = gmem_thread(map_and_check, &m);
		usleep(race_jitter(&race) * 10);
		if (race.rounds % 2)
			gmem_delete_slot(vm.vm, GMEM_SLOT);
		if (race.rounds % 3)
			gmem_vm_close_fd(&vm);
		gmem_vm_free(&vm);
		usleep(race_jitter(&race));
		WRITE_ONCE(m.stop, true);
		for (i = 0; i < ARRAY_SIZE(threads); i++)
			pthread_join(threads[i], NULL);
		close(m.fd);
		min = min(min, m.nr);
		race.rounds++;
	}
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 0));
	TH_LOG("%d rounds, at least %d mappings in each", race.rounds, min);
}

/* The same with the memory itself, which the last mapping takes along */
static void run_unmap(void *arg)
{
	munmap(arg, TEST_SIZE);
}

TEST_F(mmap_race, all_references_end_at_once)
{
	struct gmem_vm vm;
	struct race race;
	void *mem[2];
	int i, fd;

	race_init(&race);
	while (race_goes_on(&race)) {
		gmem_plain_create(&vm, TEST_SIZE);
		for (i = 0; i < ARRAY_SIZE(mem); i++) {
			mem[i] = gmem_map(vm.fd, TEST_SIZE);
			gmem_host_fill(mem[i], TEST_SIZE, PATTERN);
			race_add(&race, run_unmap, mem[i]);
		}
		fd = vm.fd;
		vm.fd = -1;
		race_start(&race);
		close(fd);
		gmem_vm_free(&vm);
		race_join(&race);
	}
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 0));
	TH_LOG("%d rounds", race.rounds);
}

static void *fault_all(void *arg)
{
	struct gmem_vm *g = arg;

	while (!READ_ONCE(stop)) {
		madvise(g->shared, TEST_SIZE, MADV_DONTNEED);
		gmem_host_expect(g->shared, TEST_SIZE, PATTERN);
	}
	return NULL;
}

/* KVM's view of the slot comes and goes, the host's does not notice. */
TEST_F(mmap_race, slots_come_and_go_under_host_faults)
{
	struct gmem_vm *g = &self->g;
	pthread_t thread;
	struct race race;

	gmem_host_fill(g->shared, TEST_SIZE, PATTERN);
	thread = gmem_thread(fault_all, g);
	race_init(&race);
	while (race_goes_on(&race)) {
		gmem_delete_slot(g->vm, GMEM_SLOT);
		gmem_vm_bind(g);
		gmem_guest_expect(g, 0, TEST_SIZE, PATTERN);
		race.rounds++;
	}
	WRITE_ONCE(stop, true);
	pthread_join(thread, NULL);
	TH_LOG("%d rounds", race.rounds);
}

/*
 * Links
 */

/* Two VMs link, map and forget: one beside the first, one in its place. */
TEST_F(mmap_race, links_come_and_go_under_host_faults)
{
	struct kvm_vm *vms[2] = { vm_create_barebones(), vm_create_barebones() };
	struct gmem_vm *g = &self->g;
	int i, fd, shared = 0, pending = 0;
	pthread_t thread;
	struct race race;
	uint64_t val;
	void *mem;

	gmem_host_fill(g->shared, TEST_SIZE, PATTERN);
	thread = gmem_thread(fault_all, g);
	race_init(&race);
	while (race_goes_on(&race)) {
		i = race.rounds++ % 2;
		fd = gmem_link(vms[i], g->fd,
			       i ? 0 : KVM_LINK_GUEST_MEMFD_SHARE);
		mem = gmem_map(fd, TEST_SIZE);
		if (race.rounds % 3)
			close(fd);
		if (!i) {
			gmem_host_expect(mem, TEST_SIZE, PATTERN);
			shared++;
		} else {
			ASSERT_EQ(SIGBUS, gmem_try_read(mem, &val));
			ASSERT_EQ(SIGBUS, gmem_try_write(mem, 0xbad));
			pending++;
		}
		munmap(mem, TEST_SIZE);
		if (race.rounds % 3 == 0)
			close(fd);
	}
	WRITE_ONCE(stop, true);
	pthread_join(thread, NULL);
	kvm_vm_free(vms[0]);
	kvm_vm_free(vms[1]);
	TH_LOG("%d shared, %d pending links", shared, pending);
}

struct heir {
	void *mem;
	int refused;
};

/* Once it can be touched, it is all there, and stays. */
static void run_heir(void *arg)
{
	uint64_t end = gmem_now_ms() + 10000;
	struct heir *h = arg;
	uint64_t val;

	while (gmem_try_read(h->mem, &val)) {
		TEST_ASSERT(gmem_now_ms() < end, "the view stays pending");
		h->refused++;
	}
	gmem_host_expect(h->mem, TEST_SIZE, PATTERN);
	TEST_ASSERT_EQ(gmem_try_write(h->mem, PATTERN), 0);
}

/* The heir's host touches its mapping while the first VM goes. */
TEST_F(mmap_race, heir_waits_for_the_end_of_the_first_vm)
{
	struct gmem_vm a;
	struct race race;
	struct kvm_vm *b;
	struct heir h;
	int fd;

	race_init(&race);
	b = vm_create_barebones();
	while (race_goes_on(&race)) {
		gmem_plain_create(&a, TEST_SIZE);
		gmem_host_fill(a.shared, TEST_SIZE, PATTERN);
		fd = gmem_link(b, a.fd, 0);
		h.mem = gmem_map(fd, TEST_SIZE);
		h.refused = 0;
		race_add(&race, run_heir, &h);
		race_start(&race);
		gmem_vm_free(&a);
		race_join(&race);
		race_was_first(&race, !h.refused);
		munmap(h.mem, TEST_SIZE);
		close(fd);
	}
	kvm_vm_free(b);
	LOG_RACE(&race, "end first");
}

/*
 * Processes
 */

/* Own the mapping, use it in a way that @how tells, and end. */
static void be_child(struct gmem_vm *g, int how)
{
	uint64_t val;
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		val = READ_ONCE(*(uint64_t *)(g->shared + i * PAGE_SIZE));
		if (val && val != PATTERN)
			_exit(1);
		if (i % 4 == how % 4)
			WRITE_ONCE(*(uint64_t *)(g->shared + i * PAGE_SIZE),
				   PATTERN);
	}
	switch (how % 4) {
	case 0:
		munmap(g->shared, TEST_SIZE);
		break;
	case 1:
		mlock(g->shared, TEST_SIZE);
		break;
	case 2:
		kill(getpid(), SIGKILL);
		break;
	case 3:
		execl("/proc/self/exe", "gmem_mmap_race_test", "end", NULL);
		break;
	}
	_exit(0);
}

static void *punch_and_check(void *arg)
{
	struct gmem_vm *g = arg;
	uint64_t val;
	int i;

	while (!READ_ONCE(stop)) {
		gmem_punch(g->fd, 0, TEST_SIZE);
		for (i = 0; i < NR_PAGES; i++) {
			val = READ_ONCE(*(uint64_t *)(g->shared +
						      i * PAGE_SIZE));
			TEST_ASSERT(!val || val == PATTERN,
				    "page %d holds 0x%lx", i, val);
		}
	}
	return NULL;
}

TEST_F(mmap_race, processes_begin_and_end_under_holes)
{
	struct gmem_vm *g = &self->g;
	int i, status, nr = 0;
	uint64_t end = gmem_now_ms() + 2 * gmem_race_ms();
	pthread_t threads[2];
	pid_t pids[4];

	threads[0] = gmem_thread(punch_and_check, g);
	threads[1] = gmem_thread(churn_memory, NULL);
	while (gmem_now_ms() < end) {
		for (i = 0; i < ARRAY_SIZE(pids); i++) {
			pids[i] = gmem_fork();
			if (!pids[i])
				be_child(g, i);
		}
		for (i = 0; i < ARRAY_SIZE(pids); i++) {
			ASSERT_EQ(pids[i], waitpid(pids[i], &status, 0));
			ASSERT_EQ(i == 2 ? SIGKILL : 0, status)
				TH_LOG("child %d", i);
		}
		nr += ARRAY_SIZE(pids);
	}
	WRITE_ONCE(stop, true);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_host_expect(g->shared, TEST_SIZE, 0);
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	TH_LOG("%d processes", nr);
}

/* Of a process that runs the VM: nothing may be left, whatever it was at. */
TEST_F(mmap_race, vmm_is_killed)
{
	struct gmem_usage before;
	struct gmem_vm g;
	struct race race;
	pid_t pid;

	gmem_usage_get(&before);
	race_init(&race);
	while (race_goes_on(&race)) {
		pid = gmem_fork();
		if (!pid) {
			gmem_plain_create(&g, TEST_SIZE);
			gmem_guest_start(&g, guest_write_and_check, 0, 0, 0, 0);
			gmem_thread(run_vcpu, &g);
			gmem_thread(churn_memory, NULL);
			for (;;) {
				madvise(g.shared, TEST_SIZE, MADV_DONTNEED);
				madvise(g.shared, TEST_SIZE,
					MADV_POPULATE_WRITE);
				gmem_punch(g.fd, 0, TEST_SIZE);
			}
		}
		usleep(50000 + race_jitter(&race) * 50);
		gmem_kill(pid);
		gmem_usage_check(&before);
		race.rounds++;
	}
	TH_LOG("%d rounds", race.rounds);
}

/*
 * Memory failure
 */

struct victim {
	struct gmem_vm *g;
	unsigned long pfn;
	int holes;
};

static void run_poison(void *arg)
{
	struct victim *v = arg;

	poison(v->pfn);
}

static void run_punch_bad(void *arg)
{
	struct victim *v = arg;

	gmem_punch(v->g->fd, 0, TEST_SIZE);
}

/* The host sees what was there, a report, or zeroes after the hole. */
TEST_F(mmap_race, failure_under_host_faults_and_holes)
{
	struct gmem_vm *g = &self->g;
	struct victim v = { .g = g };
	int i, sig, reports = 0;
	struct race race;
	uint64_t val;

	if (!can_poison())
		SKIP(return, "load hwpoison-inject, mount tracefs");

	trace_start();
	race_init(&race);
	while (may_poison_more(race.start, race.rounds, MIN_ROUNDS)) {
		gmem_punch(g->fd, 0, TEST_SIZE);
		v.pfn = allocate_pfn(g->fd, PAGE_SIZE);
		gmem_host_fill(g->shared, TEST_SIZE, PATTERN);
		race_add(&race, run_poison, &v);
		if (race.rounds % 2)
			race_add(&race, run_punch_bad, &v);
		race_start(&race);
		for (i = 0; i < 20; i++) {
			val = 0;
			sig = gmem_try_read(g->shared + PAGE_SIZE, &val);
			ASSERT_TRUE(sig == SIGBUS || val == PATTERN || !val);
			if (sig)
				ASSERT_EQ(BUS_MCEERR_AR, gmem_trap_info.si_code);
			gmem_try_madvise(g->shared, TEST_SIZE, MADV_DONTNEED);
			reports += !!sig;
		}
		race_join(&race);
		sig = __gmem_guest_read(g, PAGE_SIZE);
		ASSERT_TRUE(!sig || sig == EHWPOISON);
		gmem_punch(g->fd, 0, TEST_SIZE);
		gmem_try_madvise(g->shared, TEST_SIZE, MADV_DONTNEED);
		gmem_host_expect(g->shared, TEST_SIZE, 0);
		gmem_guest_expect(g, 0, TEST_SIZE, 0);
	}
	trace_stop();
	unpoison_all();
	TH_LOG("%d rounds, %d reports", race.rounds, reports);
	EXPECT_SEEN(&race, reports);
}

int main(int argc, char *argv[])
{
	/* A child of processes_begin_and_end_under_holes */
	if (argc == 2 && !strcmp(argv[1], "end"))
		return 0;

	gmem_require_mmap();
	return test_harness_run(argc, argv);
}
