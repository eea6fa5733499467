// SPDX-License-Identifier: GPL-2.0
/*
 * What a guest wrote is not in its pages any more when they are free, where
 * that is promised: by reclaim as TDX does it, and by the page allocator of a
 * kernel that was booted with init_on_free=1.
 *
 * Otherwise a free page is like any process's: nothing clears it before it is
 * to have another user, who then finds zeroes.  That is gmem_zero_test's; here
 * it serves to show that the scan finds what is there.
 */
#include "gmem_model_util.h"

#define NR_PAGES  512
#define TEST_SIZE (NR_PAGES * PAGE_SIZE)

/*
 * So many pages may the kernel take for itself before they are scanned.  It is
 * none as a rule, but some dozens where checkers keep books of all that happens.
 */
#define MAX_TAKEN (NR_PAGES / 4)

/* All words of all pages that go hold this. */
#define SECRET	  0x5ec2e75ec2e75ec2ull

FIXTURE(wipe)
{
	struct gmem_usage usage;
};

FIXTURE_VARIANT(wipe)
{
	bool clear;	/* reclaim clears */
	bool init_on_free;
};

FIXTURE_VARIANT_ADD(wipe, by_nobody)
{
	.clear = false,
};

FIXTURE_VARIANT_ADD(wipe, by_reclaim)
{
	.clear = true,
};

FIXTURE_VARIANT_ADD(wipe, by_init_on_free)
{
	.init_on_free = true,
};

FIXTURE_SETUP(wipe)
{
	if (gmem_booted_with("init_on_free=1") != variant->init_on_free)
		SKIP(return, "boot %s init_on_free=1",
		     variant->init_on_free ? "with" : "without");

	gmem_usage_get(&self->usage);
	gmem_model_begin();
	gmem_model_write("clear", variant->clear ? "Y" : "N");
}

FIXTURE_TEARDOWN(wipe)
{
	gmem_model_end();
	gmem_usage_check(&self->usage);
}

/* From here on the pages that are reclaimed are those that are scanned. */
static void start_recording(void)
{
	gmem_model_write("record", "1");
}

static void stop_recording(void)
{
	gmem_model_write("record", "0");
}

struct scan {
	long recorded, seen, found;
};

/* Once all memory is free, look for the secret in what was recorded of it. */
static struct scan scan_free_pages(void)
{
	char text[128];
	struct scan s;
	FILE *f;

	gmem_model_settle(0);
	stop_recording();
	snprintf(text, sizeof(text), "0x%llx", SECRET);
	gmem_model_write("scan", text);

	f = fopen(GMEM_MODEL "scan", "r");
	TEST_ASSERT(f && fgets(text, sizeof(text), f),
		    "cannot read " GMEM_MODEL "scan");
	fclose(f);
	TEST_ASSERT(sscanf(text, "recorded %ld seen %ld found %ld",
			   &s.recorded, &s.seen, &s.found) == 3,
		    "bad line '%s' in " GMEM_MODEL "scan", text);
	return s;
}

/*
 * Expect that @nr pages have gone: none of them with the secret where that is
 * promised, else all.
 */
#define EXPECT_WIPED(nr)						\
do {									\
	bool __promised = variant->clear || variant->init_on_free;	\
	struct scan __scan = scan_free_pages();				\
	long __nr = nr, __least = __nr - MAX_TAKEN;			\
									\
	TH_LOG("of %ld pages %ld were seen, %ld with the secret",	\
	       __scan.recorded, __scan.seen, __scan.found);		\
	EXPECT_EQ(__nr, __scan.recorded);				\
	EXPECT_LE(__least, __scan.seen);				\
	EXPECT_LE(__promised ? 0 : __least, __scan.found);		\
	EXPECT_GE(__promised ? 0 : __nr, __scan.found);			\
} while (0)

/* A VM whose guest has written the secret to all its memory. */
static void create_secret(struct gmem_vm *g)
{
	gmem_vm_create(g, TEST_SIZE);
	gmem_guest_fill(g, 0, TEST_SIZE, SECRET);
}

/* The same, and it has been moved to @dst. */
static void create_moved(struct gmem_vm *src, struct gmem_vm *dst)
{
	create_secret(src);
	gmem_vm_create_linked(dst, TEST_SIZE, src->fd, 0);
	gmem_move(dst->vm, src->vm);
}

/* End the VM, keep the descriptor. */
static int kill_vm(struct gmem_vm *g)
{
	int fd = g->fd;

	g->fd = -1;
	gmem_vm_free(g);
	return fd;
}

TEST_F(wipe, punch)
{
	struct gmem_vm g;

	create_secret(&g);
	start_recording();
	gmem_punch(g.fd, 0, TEST_SIZE);
	EXPECT_WIPED(NR_PAGES);
	gmem_vm_free(&g);
}

static uint64_t guest_rounds;
static bool guest_stop;

static void guest_write_secret(void)
{
	while (!READ_ONCE(guest_stop)) {
		uint64_t *p = (void *)GMEM_GPA;

		for (; p < (uint64_t *)(GMEM_GPA + TEST_SIZE); p++)
			WRITE_ONCE(*p, SECRET);
		WRITE_ONCE(guest_rounds, guest_rounds + 1);
	}
	GUEST_UCALL_NONE();
}

static void *run_guest(void *arg)
{
	TEST_ASSERT_EQ(__gmem_guest_run(arg, guest_write_secret, 0, 0, 0, 0), 0);
	return NULL;
}

/*
 * The guest is writing the secret and goes on with it in pages that are new, or
 * are again those that it had: these go before the scan, but are not recorded.
 */
TEST_F(wipe, punch_under_a_running_guest)
{
	uint64_t *rounds;
	pthread_t thread;
	struct gmem_vm g;

	gmem_vm_create(&g, TEST_SIZE);
	rounds = addr_gva2hva(g.vm, (vm_vaddr_t)&guest_rounds);
	thread = gmem_thread(run_guest, &g);
	while (!READ_ONCE(*rounds))
		usleep(1000);

	start_recording();
	gmem_punch(g.fd, 0, TEST_SIZE);
	stop_recording();

	WRITE_ONCE(*(bool *)addr_gva2hva(g.vm, (vm_vaddr_t)&guest_stop), true);
	pthread_join(thread, NULL);
	gmem_punch(g.fd, 0, TEST_SIZE);

	/* Of the pages that are free again KVM has some in stock for the vCPU. */
	gmem_vm_free(&g);
	EXPECT_WIPED(NR_PAGES);
}

TEST_F(wipe, slot_deletion_then_close)
{
	struct gmem_vm g;

	create_secret(&g);
	start_recording();
	gmem_delete_slot(g.vm, GMEM_SLOT);
	gmem_vm_close_fd(&g);
	EXPECT_WIPED(NR_PAGES);
	gmem_vm_free(&g);
}

TEST_F(wipe, close_then_slot_deletion)
{
	struct gmem_vm g;

	create_secret(&g);
	start_recording();
	gmem_vm_close_fd(&g);
	gmem_delete_slot(g.vm, GMEM_SLOT);
	EXPECT_WIPED(NR_PAGES);
	gmem_vm_free(&g);
}

TEST_F(wipe, close_then_vm_death)
{
	struct gmem_vm g;

	create_secret(&g);
	start_recording();
	gmem_vm_close_fd(&g);
	gmem_vm_free(&g);
	EXPECT_WIPED(NR_PAGES);
}

TEST_F(wipe, vm_death_then_close)
{
	struct gmem_vm g;
	int fd;

	create_secret(&g);
	start_recording();
	fd = kill_vm(&g);
	close(fd);
	EXPECT_WIPED(NR_PAGES);
}

TEST_F(wipe, death_of_a_vm_that_memory_is_tied_to)
{
	struct gmem_vm g;
	int fd;

	gmem_model_write("tied", "Y");
	create_secret(&g);
	start_recording();
	fd = kill_vm(&g);
	EXPECT_WIPED(NR_PAGES);
	close(fd);
}

TEST_F(wipe, last_close_of_tied_memory)
{
	struct gmem_vm g;

	gmem_model_write("tied", "Y");
	create_secret(&g);
	gmem_delete_slot(g.vm, GMEM_SLOT);
	start_recording();
	gmem_vm_close_fd(&g);
	EXPECT_WIPED(NR_PAGES);
	gmem_vm_free(&g);
}

TEST_F(wipe, move_then_punch)
{
	struct gmem_vm src, dst;

	create_moved(&src, &dst);
	start_recording();
	gmem_punch(dst.fd, 0, TEST_SIZE);
	EXPECT_WIPED(NR_PAGES);
	gmem_vm_free(&src);
	gmem_vm_free(&dst);
}

TEST_F(wipe, move_then_end_of_the_destination)
{
	struct gmem_vm src, dst;

	create_moved(&src, &dst);
	gmem_vm_free(&src);
	start_recording();
	gmem_vm_free(&dst);
	EXPECT_WIPED(NR_PAGES);
}

/* A VMM that runs its guest until it is killed; writes to @ready before. */
static void run_vmm(int ready)
{
	struct gmem_vm g;

	create_secret(&g);
	TEST_ASSERT(write(ready, "", 1) == 1, "write() to a pipe failed");
	run_guest(&g);
	_exit(1);
}

TEST_F(wipe, vmm_is_killed)
{
	int ready[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	pid = gmem_fork();
	if (!pid)
		run_vmm(ready[1]);
	ASSERT_EQ(1, read(ready[0], &c, 1));
	usleep(100000);

	start_recording();
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_WIPED(NR_PAGES);
	close(ready[0]);
	close(ready[1]);
}

/* The last page has not become the guest's. */
TEST_F(wipe, failed_populate_then_close)
{
	uint64_t *src = gmem_mmap(TEST_SIZE);
	struct gmem_vm g;
	int i;

	for (i = 0; i < TEST_SIZE / sizeof(*src); i++)
		src[i] = SECRET;

	gmem_vm_create(&g, TEST_SIZE);
	ASSERT_EQ(ERANGE, __gmem_populate(&g, 0, NR_PAGES, src, NR_PAGES - 1));
	gmem_delete_slot(g.vm, GMEM_SLOT);
	start_recording();
	gmem_vm_close_fd(&g);
	EXPECT_WIPED(NR_PAGES - 1);
	gmem_vm_free(&g);
	munmap(src, TEST_SIZE);
}

int main(int argc, char *argv[])
{
	gmem_require_model();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM));
	__TEST_REQUIRE(gmem_booted_with("init_on_alloc=0"),
		       "boot with init_on_alloc=0");
	return test_harness_run(argc, argv);
}
