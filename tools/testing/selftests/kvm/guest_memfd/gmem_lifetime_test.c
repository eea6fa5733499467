// SPDX-License-Identifier: GPL-2.0
/*
 * Who keeps what alive: a memory slot keeps the guest_memfd, so the guest runs
 * on when the descriptor is closed; the guest_memfd keeps its memory, but not
 * the VM.  Whatever the order of the ends, nothing stays behind.
 */
#include <sys/inotify.h>

#include "gmem_util.h"

#define TEST_SIZE SZ_4M
#define NR_PAGES  ((long)(TEST_SIZE / PAGE_SIZE))

FIXTURE(lifetime)
{
	struct gmem_usage usage;
};

FIXTURE_SETUP(lifetime)
{
	gmem_usage_get(&self->usage);
}

FIXTURE_TEARDOWN(lifetime)
{
	gmem_usage_check(&self->usage);
}

/* A VM whose guest has filled all its memory with @val. */
static void create_filled(struct gmem_vm *g, uint64_t val)
{
	gmem_vm_create(g, TEST_SIZE);
	gmem_guest_fill(g, 0, TEST_SIZE, val);
}

/* The guest_memfd of a VM that is gone. */
static int create_dead(void)
{
	struct gmem_vm g;
	int fd;

	create_filled(&g, 0xdead);
	fd = g.fd;
	g.fd = -1;
	gmem_vm_free(&g);
	return fd;
}

TEST_F(lifetime, guest_runs_on_when_the_descriptor_is_closed)
{
	struct gmem_vm g;

	gmem_vm_create(&g, TEST_SIZE);
	gmem_guest_fill(&g, 0, TEST_SIZE / 2, 0x1111);
	gmem_vm_close_fd(&g);
	gmem_guest_expect(&g, 0, TEST_SIZE / 2, 0x1111);
	gmem_guest_fill(&g, TEST_SIZE / 2, TEST_SIZE / 2, 0x2222);
	gmem_guest_expect(&g, 0, TEST_SIZE / 2, 0x1111);
	gmem_guest_expect(&g, TEST_SIZE / 2, TEST_SIZE / 2, 0x2222);
	gmem_vm_free(&g);
}

TEST_F(lifetime, last_slot_takes_the_memory_along)
{
	const size_t half = TEST_SIZE / 2;
	struct gmem_vm g;
	long base;

	gmem_vm_create(&g, TEST_SIZE);
	base = gmem_file_pages();
	gmem_delete_slot(g.vm, GMEM_SLOT);
	gmem_set_slot(g.vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, half,
		      g.shared, g.fd, 0);
	gmem_set_slot(g.vm, GMEM_SLOT + 1, KVM_MEM_GUEST_MEMFD, GMEM_GPA + half,
		      half, g.shared + half, g.fd, half);
	gmem_guest_fill(&g, 0, TEST_SIZE, 0x3333);
	gmem_vm_close_fd(&g);

	gmem_delete_slot(g.vm, GMEM_SLOT);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	gmem_guest_expect(&g, half, half, 0x3333);
	gmem_delete_slot(g.vm, GMEM_SLOT + 1);
	EXPECT_TRUE(gmem_pages_are(base, 0));
	gmem_vm_free(&g);
}

TEST_F(lifetime, closing_one_of_two_descriptors_changes_nothing)
{
	struct gmem_vm g;
	int copy;

	create_filled(&g, 0x4444);
	copy = dup(g.fd);
	gmem_vm_close_fd(&g);
	gmem_guest_expect(&g, 0, TEST_SIZE, 0x4444);
	gmem_punch(copy, 0, TEST_SIZE / 2);
	gmem_guest_expect(&g, 0, TEST_SIZE / 2, 0);
	gmem_guest_expect(&g, TEST_SIZE / 2, TEST_SIZE / 2, 0x4444);
	close(copy);
	gmem_vm_free(&g);
}

TEST_F(lifetime, memory_outlives_its_slot)
{
	struct gmem_vm g;

	create_filled(&g, 0x5555);
	gmem_delete_slot(g.vm, GMEM_SLOT);
	EXPECT_EQ(EFAULT, __gmem_guest_read(&g, 0));
	gmem_vm_bind(&g);
	gmem_guest_expect(&g, 0, TEST_SIZE, 0x5555);
	gmem_vm_free(&g);
}

TEST_F(lifetime, memory_is_not_reclaimed)
{
	struct gmem_vm g;
	int i;

	create_filled(&g, 0x6666);
	for (i = 0; i < 3; i++) {
		gmem_write_file("/proc/sys/vm/drop_caches", "3");
		gmem_write_file("/proc/sys/vm/compact_memory", "1");
		ASSERT_EQ(0, posix_fadvise(g.fd, 0, 0, POSIX_FADV_DONTNEED));
	}
	gmem_guest_expect(&g, 0, TEST_SIZE, 0x6666);
	gmem_vm_free(&g);
}

/* Nor does close() wait for it, be it the last guest_memfd or not. */
TEST_F(lifetime, watch_keeps_nothing)
{
	int i, watch = inotify_init1(0);
	struct gmem_vm g, other;
	char path[64];
	long base;

	if (watch < 0)
		SKIP(return, "needs CONFIG_INOTIFY_USER");

	gmem_vm_create(&other, TEST_SIZE);
	for (i = 0; i < 2; i++) {
		base = gmem_file_pages();
		create_filled(&g, 0x7777);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", g.fd);
		ASSERT_LT(0, inotify_add_watch(watch, path, IN_ALL_EVENTS));
		if (i)
			gmem_vm_free(&other);
		gmem_vm_free(&g);
		EXPECT_TRUE(gmem_pages_are(base, 0));
	}
	close(watch);
}

/* It keeps the memory, like any descriptor. */
TEST_F(lifetime, path_keeps_the_one_file_system)
{
	struct stat stats[2];
	struct gmem_vm g;
	char path[64];
	int i, fds[2];

	for (i = 0; i < 2; i++) {
		gmem_vm_create(&g, TEST_SIZE);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", g.fd);
		fds[i] = open(path, O_PATH);
		ASSERT_LE(0, fds[i]);
		gmem_guest_fill(&g, 0, TEST_SIZE, 0x8888);
		/* The machine's last guest_memfd. */
		gmem_vm_free(&g);
		ASSERT_EQ(0, fstat(fds[i], &stats[i]));
	}
	EXPECT_EQ(stats[0].st_dev, stats[1].st_dev);
	EXPECT_NE(stats[0].st_ino, stats[1].st_ino);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 2 * NR_PAGES));
	close(fds[0]);
	close(fds[1]);
}

TEST_F(lifetime, descriptor_does_not_keep_the_vm)
{
	int fd = create_dead();

	EXPECT_EQ(self->usage.vms, gmem_count_vms());
	close(fd);
}

TEST_F(lifetime, descriptor_keeps_the_memory_of_a_dead_vm)
{
	long base = self->usage.pages;
	int fd = create_dead();
	struct stat st;

	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(TEST_SIZE, st.st_size);
	gmem_punch(fd, 0, TEST_SIZE / 2);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_allocate(fd, 0, TEST_SIZE);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	close(fd);
	EXPECT_TRUE(gmem_pages_are(base, 0));
}

TEST_F(lifetime, descriptor_of_a_dead_vm_cannot_be_bound)
{
	int fd = create_dead();
	struct gmem_vm g;

	gmem_vm_create(&g, TEST_SIZE);
	EXPECT_EQ(EINVAL, __gmem_set_slot(g.vm, GMEM_SLOT + 1,
					  KVM_MEM_GUEST_MEMFD, 2 * GMEM_GPA,
					  TEST_SIZE, g.shared, fd, 0));
	gmem_vm_free(&g);
	close(fd);
}

TEST_F(lifetime, descriptor_keeps_the_module)
{
	int fd = create_dead();

	EXPECT_LT(self->usage.refcnt, gmem_count_module_refs());
	close(fd);
}

/*
 * All orders in which a VM's four descriptors can be closed
 */

enum end { END_VM, END_VCPU, END_GMEM, END_DUP, NR_ENDS };

static const char * const end_names[] = { "vm", "vcpu", "gmem", "dup" };

FIXTURE(order)
{
	struct gmem_usage usage;
};

FIXTURE_VARIANT(order)
{
	bool delete_slot;
};

FIXTURE_VARIANT_ADD(order, slot_bound)
{
	.delete_slot = false,
};

FIXTURE_VARIANT_ADD(order, slot_deleted)
{
	.delete_slot = true,
};

FIXTURE_SETUP(order)
{
	gmem_usage_get(&self->usage);
}

FIXTURE_TEARDOWN(order)
{
	gmem_usage_check(&self->usage);
}

static void close_in_order(const enum end *order, bool delete_slot)
{
	struct gmem_usage before;
	struct gmem_vm g;
	int i, copy;

	gmem_usage_get(&before);
	create_filled(&g, 0x7777);
	copy = dup(g.fd);
	if (delete_slot)
		gmem_delete_slot(g.vm, GMEM_SLOT);

	for (i = 0; i < NR_ENDS; i++) {
		switch (order[i]) {
		case END_VM:
			close(g.vm->fd);
			break;
		case END_VCPU:
			/* The mapping of kvm_run holds the vCPU, too. */
			munmap(g.vcpu->run, 3 * PAGE_SIZE);
			close(g.vcpu->fd);
			break;
		case END_GMEM:
			gmem_vm_close_fd(&g);
			break;
		default:
			close(copy);
			break;
		}
	}
	close(g.vm->kvm_fd);
	gmem_usage_check(&before);
}

TEST_F(order, all_orders_end_at_the_baseline)
{
	enum end order[NR_ENDS];
	int i, j, used, code, nr = 0;
	pid_t pid;

	for (code = 0; code < 256; code++) {
		for (i = 0, used = 0; i < NR_ENDS; i++) {
			order[i] = code >> 2 * i & 3;
			used |= BIT(order[i]);
		}
		if (used != BIT(NR_ENDS) - 1)
			continue;

		pid = gmem_fork();
		if (!pid) {
			close_in_order(order, variant->delete_slot);
			_exit(0);
		}
		ASSERT_EQ(pid, waitpid(pid, &j, 0));
		ASSERT_EQ(0, j) {
			TH_LOG("order %s %s %s %s", end_names[order[0]],
			       end_names[order[1]], end_names[order[2]],
			       end_names[order[3]]);
		}
		nr++;
	}
	EXPECT_EQ(24, nr);
}

/*
 * Processes
 */

/* Close what a child inherited of a VM, except for the guest_memfd. */
static void drop_vm(struct gmem_vm *g)
{
	munmap(g->vcpu->run, 3 * PAGE_SIZE);
	close(g->vcpu->fd);
	close(g->vm->fd);
	close(g->vm->kvm_fd);
}

TEST_F(lifetime, forked_child_keeps_the_memory_not_the_vm)
{
	long base = self->usage.pages;
	int pipefd[2];
	struct gmem_vm g;
	pid_t owner, heir;
	char c;

	/* The heir lives until the pipe is closed. */
	ASSERT_EQ(0, pipe(pipefd));
	owner = gmem_fork();
	if (!owner) {
		create_filled(&g, 0x8888);
		heir = fork();
		if (!heir) {
			close(pipefd[1]);
			drop_vm(&g);
			read(pipefd[0], &c, 1);
			_exit(0);
		}
		_exit(heir < 0);
	}
	close(pipefd[0]);
	gmem_wait_ok(owner);
	usleep(200000);
	EXPECT_EQ(self->usage.vms, gmem_count_vms());
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	close(pipefd[1]);
}

#define EXEC_ENV "GMEM_LIFETIME_TEST"

/* The executed program gets the descriptor's number and that of the other VMs. */
static int executed(const char *args)
{
	long base = gmem_file_pages();
	struct stat st;
	int fd, vms;

	TEST_ASSERT(sscanf(args, "%d %d", &fd, &vms) == 2, "bad " EXEC_ENV);
	TEST_ASSERT(!fstat(fd, &st) && st.st_size == TEST_SIZE,
		    "the guest_memfd did not survive exec");
	TEST_ASSERT_EQ(gmem_count_vms(), vms);
	gmem_punch(fd, 0, TEST_SIZE);
	TEST_ASSERT(gmem_pages_are(base, -NR_PAGES), "the memory is not freed");
	return 0;
}

TEST_F(lifetime, executed_program_keeps_the_memory_not_the_vm)
{
	struct gmem_vm g;
	char args[32];
	pid_t pid;

	pid = gmem_fork();
	if (!pid) {
		create_filled(&g, 0x9999);
		snprintf(args, sizeof(args), "%d %d", g.fd, self->usage.vms);
		setenv(EXEC_ENV, args, 1);
		execl("/proc/self/exe", "gmem_lifetime_test", NULL);
		_exit(1);
	}
	gmem_wait_ok(pid);
}

static void guest_write_for_ever(void)
{
	uint64_t *p = (void *)GMEM_GPA;
	uint64_t i;

	for (i = 0; ; i++)
		WRITE_ONCE(p[i % (TEST_SIZE / 8)], i);
}

TEST_F(lifetime, killed_while_the_guest_runs)
{
	struct gmem_vm g;
	pid_t pid;
	int i;

	for (i = 0; i < 5; i++) {
		pid = gmem_fork();
		if (!pid) {
			gmem_vm_create(&g, TEST_SIZE);
			vcpu_arch_set_entry_point(g.vcpu, guest_write_for_ever);
			_vcpu_run(g.vcpu);
			_exit(1);
		}
		usleep(300000);
		gmem_kill(pid);
		gmem_usage_check(&self->usage);
	}
}

/* Another user gets the descriptor: may free the memory, may not read it. */
TEST_F(lifetime, sent_to_another_user)
{
	long base = self->usage.pages;
	struct gmem_vm g;
	int sock[2], fd;
	pid_t pid;
	char c;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = gmem_fork();
	if (!pid) {
		create_filled(&g, 0xaaaa);
		gmem_send_fd(sock[1], g.fd);
		_exit(0);
	}
	gmem_wait_ok(pid);

	/* In flight only the socket holds it. */
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	fd = gmem_receive_fd(sock[0]);
	EXPECT_EQ(self->usage.vms, gmem_count_vms());

	pid = gmem_fork();
	if (!pid) {
		TEST_ASSERT(!setresuid(65534, 65534, 65534), "setresuid()");
		TEST_ASSERT(pread(fd, &c, 1, 0) < 0, "pread() succeeds");
		TEST_ASSERT(fchmod(fd, 0666) < 0, "fchmod() succeeds");
		TEST_ASSERT(ftruncate(fd, 0) < 0, "ftruncate() succeeds");
		gmem_punch(fd, 0, TEST_SIZE);
		_exit(0);
	}
	gmem_wait_ok(pid);
	EXPECT_TRUE(gmem_pages_are(base, 0));
	close(fd);
	close(sock[0]);
	close(sock[1]);
}

struct closer {
	int fd;
	bool go;
};

static void *close_when_told(void *arg)
{
	struct closer *closer = arg;

	while (!READ_ONCE(closer->go))
		;
	close(closer->fd);
	return NULL;
}

/* The last close() and the deletion of the slot race for the end of the file. */
TEST_F(lifetime, close_races_with_slot_deletion)
{
	uint64_t start = gmem_now_ms();
	pthread_t thread;
	struct gmem_vm g;
	int i;

	gmem_vm_create(&g, TEST_SIZE);
	gmem_delete_slot(g.vm, GMEM_SLOT);
	gmem_vm_close_fd(&g);
	for (i = 0; gmem_race_goes_on(start, i, 20); i++) {
		struct closer closer = {
			.fd = vm_create_guest_memfd(g.vm, TEST_SIZE, 0),
		};

		thread = gmem_thread(close_when_told, &closer);
		gmem_set_slot(g.vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
			      TEST_SIZE, g.shared, closer.fd, 0);
		gmem_guest_fill(&g, 0, 4 * PAGE_SIZE, 1);
		WRITE_ONCE(closer.go, true);
		gmem_delete_slot(g.vm, GMEM_SLOT);
		pthread_join(thread, NULL);
	}
	gmem_vm_free(&g);
	TH_LOG("%d rounds", i);
}

int main(int argc, char *argv[])
{
	if (getenv(EXEC_ENV))
		return executed(getenv(EXEC_ENV));

	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
