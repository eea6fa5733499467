// SPDX-License-Identifier: GPL-2.0
/*
 * Accounting: memory is charged to the memory cgroup of whoever first touches
 * it, its limit holds, and what KVM itself allocates for files and bindings is
 * charged, too.
 */
#include <fcntl.h>
#include <glob.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "gmem_cgroup_util.h"
#include "gmem_mmap_util.h"

#define TEST_SIZE SZ_16M

/* Counters are kept per CPU in batches of 64 pages. */
#define SLACK	  SZ_2M

FIXTURE(account)
{
	struct gmem_usage usage;
};

FIXTURE_SETUP(account)
{
	gmem_usage_get(&self->usage);
	gmem_cgroup_create();
}

FIXTURE_TEARDOWN(account)
{
	gmem_usage_check(&self->usage);
	EXPECT_EQ(0, __gmem_cgroup_remove());
}

static void expect_near(long seen, long expected)
{
	TEST_ASSERT(labs(seen - expected) <= SLACK,
		    "%ld bytes are charged instead of %ld", seen, expected);
}

static void guest_is_charged(void)
{
	struct gmem_vm g;

	gmem_cgroup_enter();
	gmem_vm_create(&g, TEST_SIZE);
	expect_near(gmem_cgroup_stat("file "), 0);
	gmem_guest_fill(&g, 0, TEST_SIZE, 1);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE);
	gmem_punch(g.fd, 0, TEST_SIZE / 2);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE / 2);
	gmem_delete_slot(g.vm, GMEM_SLOT);
	gmem_vm_close_fd(&g);
	expect_near(gmem_cgroup_stat("file "), 0);
}

TEST_F(account, memory_is_charged_to_the_guest)
{
	pid_t pid = gmem_fork();

	if (!pid) {
		guest_is_charged();
		_exit(0);
	}
	gmem_wait_ok(pid);
}

/* The process that allocates need not be the one that has the VM. */
TEST_F(account, memory_is_charged_to_the_allocator)
{
	struct gmem_vm g;
	pid_t pid;

	gmem_vm_create(&g, TEST_SIZE);
	gmem_guest_fill(&g, 0, TEST_SIZE / 2, 1);
	expect_near(gmem_cgroup_stat("file "), 0);

	pid = gmem_fork();
	if (!pid) {
		gmem_cgroup_enter();
		gmem_allocate(g.fd, 0, TEST_SIZE);
		_exit(0);
	}
	gmem_wait_ok(pid);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE / 2);
	gmem_guest_fill(&g, 0, TEST_SIZE, 2);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE / 2);
	gmem_vm_free(&g);
}

/*
 * Whoever touches a page by a mapping, be it the VMM or another process, pays for
 * it if it is not there yet.
 */
TEST_F(account, memory_is_charged_to_the_host_that_touches_it)
{
	struct gmem_vm g;
	pid_t pid;

	if (!kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS))
		SKIP(return, "no host mappings");

	gmem_plain_create(&g, TEST_SIZE);
	gmem_guest_fill(&g, 0, TEST_SIZE / 4, 1);
	gmem_host_fill(g.shared + TEST_SIZE / 4, TEST_SIZE / 4, 1);
	expect_near(gmem_cgroup_stat("file "), 0);

	pid = gmem_fork();
	if (!pid) {
		gmem_cgroup_enter();
		gmem_host_expect(g.shared, TEST_SIZE / 2, 1);
		expect_near(gmem_cgroup_stat("file "), 0);
		gmem_host_fill(g.shared, TEST_SIZE, 2);
		_exit(0);
	}
	gmem_wait_ok(pid);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE / 2);
	gmem_guest_expect(&g, 0, TEST_SIZE, 2);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE / 2);
	gmem_punch(g.fd, TEST_SIZE / 2, TEST_SIZE / 4);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE / 4);
	gmem_vm_free(&g);
	expect_near(gmem_cgroup_stat("file "), 0);
}

static void guest_read_blocks(uint64_t gpa, uint64_t size)
{
	uint64_t end = gpa + size;

	/* KVM lets the guest wait only if it can be interrupted. */
	asm volatile("sti");
	for (; gpa < end; gpa += SZ_2M)
		READ_ONCE(*(uint64_t *)gpa);
	asm volatile("cli");
	GUEST_UCALL_NONE();
}

static void *run_to_the_end(void *arg)
{
	TEST_ASSERT_EQ(__gmem_guest_end(arg), 0);
	return NULL;
}

/*
 * While KVM's own thread waits for the contents of memory that the guest reads, put
 * a guest_memfd there, which that thread touches then.
 */
static void kvm_touches_memory(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffd_msg msg;
	pthread_t thread;
	struct gmem_vm g;
	int i, uffd;
	void *at;

	gmem_vm_create_type(&g, TEST_SIZE, VM_TYPE_DEFAULT);
	g.fd = vm_create_guest_memfd(g.vm, TEST_SIZE, GMEM_BOTH);
	g.shared = gmem_mmap(TEST_SIZE);
	gmem_set_slot(g.vm, GMEM_SLOT, 0, GMEM_GPA, TEST_SIZE, g.shared, -1, 0);

	uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	TEST_ASSERT(uffd >= 0, "no userfaultfd");
	reg.range.start = (uintptr_t)g.shared;
	reg.range.len = TEST_SIZE;
	TEST_ASSERT(!ioctl(uffd, UFFDIO_API, &api) &&
		    !ioctl(uffd, UFFDIO_REGISTER, &reg),
		    "userfaultfd does not work");

	gmem_cgroup_enter();
	gmem_guest_start(&g, guest_read_blocks, GMEM_GPA, TEST_SIZE, 0, 0);
	thread = gmem_thread(run_to_the_end, &g);
	reg.range.len = SZ_2M;
	for (i = 0; i < TEST_SIZE / SZ_2M; i++) {
		TEST_ASSERT(read(uffd, &msg, sizeof(msg)) == sizeof(msg),
			    "no event");
		at = g.shared + i * SZ_2M;
		TEST_ASSERT_EQ((void *)msg.arg.pagefault.address, at);
		at = mmap(at, SZ_2M, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, g.fd, i * SZ_2M);
		TEST_ASSERT(at != MAP_FAILED, "mmap() failed");
		reg.range.start = (uintptr_t)at;
		TEST_ASSERT(!ioctl(uffd, UFFDIO_WAKE, &reg.range),
			    "UFFDIO_WAKE failed");
	}
	pthread_join(thread, NULL);
	expect_near(gmem_cgroup_stat("file "), TEST_SIZE);
	close(uffd);
	gmem_vm_free(&g);
}

TEST_F(account, memory_is_charged_to_the_vmm_that_kvm_touches_it_for)
{
	pid_t pid;

	if (!kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS))
		SKIP(return, "no host mappings");
	if (!gmem_may_be_huge())
		SKIP(return, "needs huge folios");

	pid = gmem_fork();
	if (!pid) {
		kvm_touches_memory();
		_exit(0);
	}
	gmem_wait_ok(pid);
}

TEST_F(account, limit_is_kept_when_the_host_touches)
{
	struct gmem_vm g;
	int status;
	pid_t pid;

	if (!kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS))
		SKIP(return, "no host mappings");

	gmem_cgroup_limit("32M");
	gmem_plain_create(&g, SZ_64M);
	pid = gmem_fork();
	if (!pid) {
		gmem_cgroup_enter();
		gmem_host_fill(g.shared, SZ_64M, 1);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_LT(0, gmem_cgroup_event("oom "));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	gmem_vm_free(&g);
}

TEST_F(account, limit_is_kept)
{
	struct gmem_vm g;
	int status;
	pid_t pid;

	gmem_cgroup_limit("32M");
	pid = gmem_fork();
	if (!pid) {
		gmem_vm_create(&g, SZ_64M);
		gmem_cgroup_enter();
		__gmem_guest_fill(&g, 0, SZ_64M, 1);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_LT(0, gmem_cgroup_event("oom "));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/*
 * A VMM that is killed for its memory gives it back, unless somebody else has the
 * descriptor: then its cgroup goes on paying.  Others are not harmed.
 */
TEST_F(account, survivor_of_the_oom_killer_keeps_the_charge)
{
	struct gmem_vm g, other;
	int sock[2], fd, status;
	pid_t pid;

	gmem_vm_create(&other, TEST_SIZE);
	gmem_guest_fill(&other, 0, TEST_SIZE, 0x1111);
	gmem_cgroup_limit("32M");
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = gmem_fork();
	if (!pid) {
		gmem_vm_create(&g, SZ_64M);
		gmem_send_fd(sock[1], g.fd);
		gmem_cgroup_enter();
		__gmem_guest_fill(&g, 0, SZ_64M, 1);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_LT(0, gmem_cgroup_event("oom_kill "));
	gmem_guest_expect(&other, 0, TEST_SIZE, 0x1111);

	fd = gmem_receive_fd(sock[0]);
	EXPECT_LT(SZ_32M - 2 * SLACK, gmem_cgroup_stat("file "));
	gmem_punch(fd, 0, SZ_64M);
	expect_near(gmem_cgroup_stat("file "), 0);
	close(fd);
	close(sock[0]);
	close(sock[1]);
	gmem_guest_expect(&other, 0, TEST_SIZE, 0x1111);
	gmem_vm_free(&other);
}

#define NR_SLOTS 2000

/*
 * Create slots, each in a distant part of the file, so that an index of them is
 * as large as it gets.  Return how many bytes of slab nobody is charged for.
 */
static long create_slots(uint32_t flags)
{
	const uint64_t stride = SZ_16M;
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	int fd = vm_create_guest_memfd(vm, NR_SLOTS * stride, 0);
	void *mem = gmem_mmap(PAGE_SIZE);
	long own, all;
	int i;

	own = gmem_cgroup_stat("slab ");
	all = gmem_read_long("/proc/meminfo", "Slab:") * 1024;
	for (i = 0; i < NR_SLOTS; i++)
		gmem_set_slot(vm, i, flags, i * 2 * PAGE_SIZE, PAGE_SIZE, mem,
			      fd, i * stride + 3 * PAGE_SIZE);
	own = gmem_cgroup_stat("slab ") - own;
	all = gmem_read_long("/proc/meminfo", "Slab:") * 1024 - all;
	TEST_ASSERT(own > NR_SLOTS * 200, "only %ld bytes are charged", own);
	return all - own;
}

/*
 * What others do at the same time is in the sum, too, and what RCU frees only
 * later: so there are several tries, and one that is good is enough.
 */
static void bindings_are_charged(void)
{
	long plain, bound = 0;
	int i;

	gmem_cgroup_enter();
	for (i = 0; i < 5; i++) {
		plain = create_slots(0);
		bound = create_slots(KVM_MEM_GUEST_MEMFD) - plain;
		if (bound < NR_SLOTS * 200)
			return;
	}
	TEST_FAIL("nobody is charged for %ld bytes of %d bindings", bound,
		  NR_SLOTS);
}

TEST_F(account, bindings_are_charged)
{
	pid_t pid = gmem_fork();

	if (!pid) {
		bindings_are_charged();
		_exit(0);
	}
	gmem_wait_ok(pid);
}

#define NR_RANGES 5000

/* Attributes take memory by the range, for as long as there are ranges. */
static void attributes_are_charged(void)
{
	struct kvm_vm *vm;
	long base, many;
	int i;

	gmem_cgroup_enter();
	vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	base = gmem_cgroup_stat("slab ");
	for (i = 0; i < NR_RANGES; i++)
		vm_mem_set_private(vm, 2 * i * PAGE_SIZE, PAGE_SIZE);
	many = gmem_cgroup_stat("slab ") - base;
	TEST_ASSERT(many > NR_RANGES * 16, "only %ld bytes are charged", many);
	kvm_vm_free(vm);
}

TEST_F(account, attributes_are_charged)
{
	pid_t pid = gmem_fork();

	if (!pid) {
		attributes_are_charged();
		_exit(0);
	}
	gmem_wait_ok(pid);
}

#define NR_FILES 2000

/*
 * Objects in the caches of kmalloc() that serve allocations without account. What
 * CPUs have at hand counts as used until the cache is shrunk.
 */
static long count_unaccounted_objects(void)
{
	long active, sum = 0;
	glob_t caches;
	size_t i;
	char line[512];
	FILE *f;

	TEST_ASSERT(!glob("/sys/kernel/slab/kmalloc-*/shrink", 0, NULL, &caches),
		    "no caches in /sys/kernel/slab");
	for (i = 0; i < caches.gl_pathc; i++) {
		f = fopen(caches.gl_pathv[i], "w");
		TEST_ASSERT(f && fputc('1', f) == '1' && !fclose(f),
			    "cannot write to %s", caches.gl_pathv[i]);
	}
	globfree(&caches);

	f = fopen("/proc/slabinfo", "r");
	TEST_ASSERT(f, "cannot open /proc/slabinfo");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "kmalloc-rnd-%*[0-9-] %ld", &active) == 1 ||
		    sscanf(line, "kmalloc-%*[0-9k] %ld", &active) == 1)
			sum += active;
	}
	fclose(f);
	return sum;
}

TEST_F(account, files_are_charged)
{
	struct rlimit limit = { NR_FILES * 3, NR_FILES * 3 };
	static int fds[NR_FILES], links[NR_FILES];
	struct kvm_vm *vm, *other;
	long before, grown[2];
	int i;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	other = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	/* The table of descriptors grows by itself, and only once. */
	ASSERT_EQ(2 * NR_FILES + 100, dup2(vm->fd, 2 * NR_FILES + 100));

	before = count_unaccounted_objects();
	for (i = 0; i < NR_FILES; i++)
		fds[i] = vm_create_guest_memfd(vm, PAGE_SIZE, 0);
	grown[0] = count_unaccounted_objects() - before;

	before = count_unaccounted_objects();
	for (i = 0; i < NR_FILES; i++)
		links[i] = gmem_link(other, fds[i], 0);
	grown[1] = count_unaccounted_objects() - before;

	TH_LOG("%d files took %ld objects that no one is charged for, %d links %ld",
	       NR_FILES, grown[0], NR_FILES, grown[1]);
	EXPECT_GT(NR_FILES / 2, grown[0]);
	EXPECT_GT(NR_FILES / 2, grown[1]);

	for (i = 0; i < NR_FILES; i++) {
		close(links[i]);
		close(fds[i]);
	}
	close(2 * NR_FILES + 100);
	kvm_vm_free(other);
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	__TEST_REQUIRE(gmem_cgroup_can(),
		       "mount cgroup2 with the memory controller");
	return test_harness_run(argc, argv);
}
