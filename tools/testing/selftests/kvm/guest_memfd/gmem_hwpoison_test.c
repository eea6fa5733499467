// SPDX-License-Identifier: GPL-2.0
/*
 * Memory failure: the guest gets a report instead of a broken page, the rest of
 * its memory is untouched, and handling the failure never deadlocks with what
 * else is done to the file.
 */
#include "gmem_mmap_util.h"
#include "gmem_model_util.h"
#include "gmem_poison_util.h"

#define TEST_SIZE SZ_4M
#define BAD	  (5 * PAGE_SIZE)	/* the page that fails */

#define SOFT_OFFLINE "/sys/devices/system/memory/soft_offline_page"

FIXTURE(hwpoison)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(hwpoison)
{
	gmem_usage_get(&self->usage);
	trace_start();
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(hwpoison)
{
	gmem_vm_free(&self->g);
	unpoison_all();
	trace_stop();
	gmem_usage_check(&self->usage);
}

/* Fill the memory and break one page of it. */
static void fill_and_poison(struct gmem_vm *g)
{
	unsigned long pfn = allocate_pfn(g->fd, BAD);

	gmem_guest_fill(g, 0, TEST_SIZE, 0x600d);
	poison(pfn);
}

static void expect_only_bad_page_missing(struct gmem_vm *g)
{
	const uint64_t rest = BAD + PAGE_SIZE;

	gmem_guest_expect(g, 0, BAD, 0x600d);
	gmem_guest_expect(g, rest, TEST_SIZE - rest, 0x600d);
}

TEST_F(hwpoison, access_is_reported)
{
	struct gmem_vm *g = &self->g;
	struct kvm_run *run = g->vcpu->run;
	int i;

	fill_and_poison(g);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(EHWPOISON, __gmem_guest_read(g, BAD));
		EXPECT_EQ(KVM_EXIT_MEMORY_FAULT, run->exit_reason);
		EXPECT_EQ(GMEM_GPA + BAD, run->memory_fault.gpa);
		EXPECT_EQ(PAGE_SIZE, run->memory_fault.size);
		EXPECT_EQ(KVM_MEMORY_EXIT_FLAG_PRIVATE,
			  run->memory_fault.flags);
	}
	EXPECT_EQ(EHWPOISON, __gmem_guest_fill(g, BAD, PAGE_SIZE, 1));
	expect_only_bad_page_missing(g);
}

TEST_F(hwpoison, hole_brings_a_good_page)
{
	struct gmem_vm *g = &self->g;

	fill_and_poison(g);
	EXPECT_EQ(EHWPOISON, __gmem_guest_read(g, BAD));
	gmem_punch(g->fd, BAD, PAGE_SIZE);
	gmem_guest_expect(g, BAD, PAGE_SIZE, 0);
	gmem_guest_fill(g, BAD, PAGE_SIZE, 0x600d);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x600d);
}

TEST_F(hwpoison, page_stays_bad_in_a_new_slot)
{
	struct gmem_vm *g = &self->g;

	fill_and_poison(g);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_vm_bind(g);
	EXPECT_EQ(EHWPOISON, __gmem_guest_read(g, BAD));
	expect_only_bad_page_missing(g);
}

TEST_F(hwpoison, page_that_no_slot_has)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	poison(allocate_pfn(g->fd, BAD));
	gmem_vm_bind(g);
	EXPECT_EQ(EHWPOISON, __gmem_guest_read(g, BAD));
	gmem_guest_expect(g, 0, BAD, 0);
}

TEST_F(hwpoison, page_of_a_dead_vm)
{
	struct gmem_vm other;
	unsigned long pfn;

	gmem_vm_create(&other, TEST_SIZE);
	pfn = allocate_pfn(other.fd, BAD);
	kvm_vm_free(other.vm);
	poison(pfn);
	gmem_punch(other.fd, 0, TEST_SIZE);
	close(other.fd);
	munmap(other.shared, other.size);
}

/*
 * While somebody has a page of it, a huge folio cannot be split, and mm leaves
 * the broken page in it.  Who gets the memory next must not get that.
 */
TEST_F(hwpoison, pinned_huge_folio_is_not_used_again)
{
	const uint64_t flags = GUEST_MEMFD_FLAG_MMAP |
			       GUEST_MEMFD_FLAG_INIT_SHARED;
	int fd, i, pipes[2];
	struct kvm_vm *vm;
	struct iovec iov;
	char *mem;

	if (!gmem_may_be_huge())
		SKIP(return, "needs huge folios");

	vm = vm_create_barebones();
	fd = vm_create_guest_memfd(vm, SZ_2M, flags);
	mem = mmap(NULL, SZ_2M, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	for (i = 0; i < 3; i++) {
		gmem_allocate(fd, 0, SZ_2M);
		mem[BAD] = 1;
		iov = (struct iovec){ .iov_base = mem, .iov_len = 1 };
		ASSERT_EQ(0, pipe(pipes));
		ASSERT_EQ(1, vmsplice(pipes[1], &iov, 1, 0));
		EXPECT_NE(0, poison(mapped_pfn(mem + BAD)));
		close(pipes[0]);
		close(pipes[1]);
		gmem_punch(fd, 0, SZ_2M);
		/* The first that is free is that which was freed last. */
		memset(mem, 2, SZ_2M);
		gmem_punch(fd, 0, SZ_2M);
	}
	munmap(mem, SZ_2M);
	close(fd);
	kvm_vm_free(vm);
}

/* Still pinned when it is given back, it cannot be split even then. */
TEST_F(hwpoison, huge_folio_is_lost_if_it_is_pinned_for_too_long)
{
	struct iovec iov = { .iov_len = 1 };
	int i, pipes[2][2];
	struct gmem_vm g;
	long leaked;

	if (access(GMEM_MODEL, F_OK))
		SKIP(return, "needs the model, to get it back");
	if (!gmem_may_be_huge())
		SKIP(return, "needs huge folios");

	leaked = gmem_leaked_pages();
	gmem_plain_create(&g, SZ_4M);
	gmem_guest_fill(&g, 0, SZ_4M, 0x600d);
	for (i = 0; i < 2; i++) {
		iov.iov_base = g.shared + i * SZ_2M;
		ASSERT_EQ(0, pipe(pipes[i]));
		ASSERT_EQ(1, vmsplice(pipes[i][1], &iov, 1, 0));
		EXPECT_NE(0, poison(mapped_pfn(iov.iov_base + BAD)));
	}

	/* One goes with a hole, the other with the file. */
	gmem_punch(g.fd, 0, SZ_2M);
	EXPECT_EQ(leaked + SZ_2M / PAGE_SIZE, gmem_leaked_pages());
	gmem_vm_free(&g);
	EXPECT_EQ(leaked + SZ_4M / PAGE_SIZE, gmem_leaked_pages());
	EXPECT_EQ(0, gmem_violations("all"));
	for (i = 0; i < 2; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
	EXPECT_EQ(leaked + SZ_4M / PAGE_SIZE, gmem_leaked_pages());

	/* What is broken is mended before anybody can have it. */
	gmem_model_write("restore", "1");
	unpoison_all();
	EXPECT_EQ(leaked, gmem_leaked_pages());
}

/*
 * A page that is suspected of failing soon is taken out of use, if its contents
 * can be saved.  A guest's cannot.
 */
TEST_F(hwpoison, soft_offline_takes_no_page_from_the_guest)
{
	struct gmem_vm *g = &self->g;
	unsigned long pfn;
	int i;

	if (access(SOFT_OFFLINE, W_OK))
		SKIP(return, "needs CONFIG_MEMORY_HOTPLUG");

	pfn = allocate_pfn(g->fd, BAD);
	gmem_guest_fill(g, 0, TEST_SIZE, 0x600d);
	note_poisoned(pfn);
	for (i = 0; i < 2; i++) {
		EXPECT_NE(0, write_number(SOFT_OFFLINE, pfn * PAGE_SIZE));
		gmem_guest_expect(g, 0, TEST_SIZE, 0x600d);
	}

	/* Nor does it matter whether the guest maps the page. */
	gmem_delete_slot(g->vm, GMEM_SLOT);
	EXPECT_NE(0, write_number(SOFT_OFFLINE, pfn * PAGE_SIZE));
	gmem_vm_bind(g);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x600d);
}

struct poisoner {
	unsigned long pfn;
	long delay_us;
	int err;
	bool go;
};

static void *poison_when_told(void *arg)
{
	struct poisoner *p = arg;

	while (!READ_ONCE(p->go))
		cpu_relax();
	gmem_spin_us(p->delay_us);
	p->err = poison(p->pfn);
	return NULL;
}

static void *close_file(void *arg)
{
	gmem_vm_close_fd(arg);
	return NULL;
}

/*
 * Handling a failure starts with the lock of the page, punching a hole with
 * that of the file.  The last page of a large file fails while the hole is
 * punched from the front.
 */
TEST_F(hwpoison, races_with_punch_hole)
{
	const size_t size = SZ_16M;
	struct gmem_vm *g = &self->g;
	int fd = vm_create_guest_memfd(g->vm, size, 0);
	uint64_t start = gmem_now_ms();
	pthread_t thread;
	int i;

	gmem_guest_fill(g, 0, TEST_SIZE, 0x600d);
	for (i = 0; may_poison_more(start, i, 30); i++) {
		struct poisoner p = {
			.pfn = allocate_pfn(fd, size - PAGE_SIZE),
		};

		gmem_allocate(fd, 0, size);
		thread = gmem_thread(poison_when_told, &p);
		WRITE_ONCE(p.go, true);
		/* Vary which of the two is first. */
		usleep(i % 30 * 100);
		gmem_punch(fd, 0, size);
		pthread_join(thread, NULL);
		gmem_punch(fd, 0, size);
	}
	close(fd);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x600d);
	TH_LOG("%d rounds", i);
}

/*
 * The slot is deleted, and the file closed for good, while the failure of a
 * page is handled.  If the handling loses sight of the slot halfway then no
 * fault on the page's address comes to an end any more.
 *
 * Half of the failures should come before the memory is freed, half after it:
 * the delay is adapted until they do.  A page that fails while it is freed may
 * be allocated again.
 */
TEST_F(hwpoison, races_with_the_end_of_the_file)
{
	struct guest_random_state rng = new_guest_random_state(1);
	struct gmem_vm *g = &self->g;
	uint64_t start = gmem_now_ms();
	pthread_t poisoner, closer;
	long delay = 0;
	int i, err;

	for (i = 0; may_poison_more(start, i, 100); i++) {
		struct poisoner p = {
			.pfn = allocate_pfn(g->fd, BAD),
			.delay_us = delay - guest_random_u32(&rng) % 200,
		};

		err = __gmem_guest_fill(g, 0, TEST_SIZE / 8, 1);
		TEST_ASSERT(!err || err == EHWPOISON, "guest write: %s",
			    strerror(err));

		poisoner = gmem_thread(poison_when_told, &p);
		WRITE_ONCE(p.go, true);
		gmem_spin_us(-p.delay_us);
		closer = gmem_thread(close_file, g);
		gmem_delete_slot(g->vm, GMEM_SLOT);
		pthread_join(closer, NULL);
		pthread_join(poisoner, NULL);
		delay += p.err ? 20 : -20;

		g->fd = vm_create_guest_memfd(g->vm, TEST_SIZE, 0);
		gmem_vm_bind(g);
	}
	TH_LOG("%d rounds", i);
}

/* The page is lost to the VM that has the memory in the end, and no other is. */
TEST_F(hwpoison, races_with_a_move)
{
	struct guest_random_state rng = new_guest_random_state(1);
	struct gmem_vm *g = &self->g, next;
	uint64_t start = gmem_now_ms();
	pthread_t thread;
	int i;

	if (!kvm_has_cap(KVM_CAP_GUEST_MEMFD_LINK))
		SKIP(return, "no links");

	for (i = 0; may_poison_more(start, i, 10); i++) {
		struct poisoner p = {
			.pfn = allocate_pfn(g->fd, BAD),
			.delay_us = guest_random_u32(&rng) % 1000,
		};

		gmem_guest_fill(g, 0, TEST_SIZE, 0x600d);
		gmem_vm_create_linked(&next, TEST_SIZE, g->fd, 0);
		thread = gmem_thread(poison_when_told, &p);
		WRITE_ONCE(p.go, true);
		gmem_spin_us(guest_random_u32(&rng) % 1000);
		gmem_move(next.vm, g->vm);
		pthread_join(thread, NULL);

		gmem_vm_free(g);
		*g = next;
		EXPECT_EQ(EHWPOISON, __gmem_guest_read(g, BAD));
		expect_only_bad_page_missing(g);
		gmem_punch(g->fd, BAD, PAGE_SIZE);
	}
	TH_LOG("%d rounds", i);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	__TEST_REQUIRE(can_poison(), "load hwpoison-inject, mount tracefs");
	return test_harness_run(argc, argv);
}
