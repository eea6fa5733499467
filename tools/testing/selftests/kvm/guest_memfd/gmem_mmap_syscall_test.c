// SPDX-License-Identifier: GPL-2.0
/*
 * What system calls do with a host mapping: those that change it, and those that
 * use its pages by get_user_pages() and keep them for a while.
 */
#include <sys/resource.h>
#include <sys/uio.h>

#include "gmem_mmap_plain.h"

/* After what defines the types that it uses */
#include <linux/stddef.h>
#include <linux/io_uring.h>

TEST_F(plain, fork)
{
	struct gmem_vm *g = &self->g;
	pid_t pid;

	gmem_host_fill(g->shared, HALF, 0x51);
	pid = gmem_fork();
	if (!pid) {
		gmem_host_expect(g->shared, HALF, 0x51);
		gmem_host_expect(g->shared + HALF, HALF, 0);
		gmem_host_fill(g->shared, TEST_SIZE, 0x52);
		_exit(0);
	}
	gmem_wait_ok(pid);
	gmem_host_expect(g->shared, TEST_SIZE, 0x52);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x52);
}

/* The child has all that is left of the memory. */
TEST_F(plain, child_keeps_the_memory)
{
	struct gmem_vm *g = &self->g;
	int go[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(go));
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	pid = gmem_fork();
	if (!pid) {
		kvm_vm_release(g->vm);
		close(g->fd);
		TEST_ASSERT(read(go[0], &c, 1) == 1, "read() failed");
		gmem_host_expect(g->shared, TEST_SIZE, 0x51);
		gmem_host_fill(g->shared, TEST_SIZE, 0x52);
		gmem_host_expect(g->shared, TEST_SIZE, 0x52);
		_exit(0);
	}
	gmem_vm_free(g);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, NR_PAGES));
	ASSERT_EQ(1, write(go[1], "", 1));
	gmem_wait_ok(pid);
	close(go[0]);
	close(go[1]);
}

TEST_F(plain, mremap)
{
	struct gmem_vm *g = &self->g;
	void *target = gmem_mmap(2 * TEST_SIZE);
	uint64_t val;
	void *mem;

	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	mem = gmem_map(g->fd, TEST_SIZE);
	gmem_host_expect(mem, HALF, 0x51);

	/* Moved, and larger than the file */
	mem = mremap(mem, TEST_SIZE, 2 * TEST_SIZE,
		     MREMAP_MAYMOVE | MREMAP_FIXED, target);
	ASSERT_EQ(target, mem);
	gmem_host_expect(mem, TEST_SIZE, 0x51);
	gmem_expect_sigbus(mem + TEST_SIZE, BUS_ADRERR);
	gmem_host_fill(mem, TEST_SIZE, 0x52);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x52);

	/* Smaller */
	ASSERT_EQ(mem, mremap(mem, 2 * TEST_SIZE, HALF, 0));
	gmem_host_expect(mem, HALF, 0x52);
	EXPECT_EQ(SIGSEGV, gmem_try_read(mem + HALF, &val));
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_host_expect(mem, HALF, 0);
	munmap(mem, HALF);
}

TEST_F(plain, partial_munmap)
{
	struct gmem_vm *g = &self->g;
	uint64_t val;

	gmem_host_fill(g->shared, TEST_SIZE, 0x51);
	ASSERT_EQ(0, munmap(g->shared + PAGE_SIZE, 2 * PAGE_SIZE));
	EXPECT_EQ(SIGSEGV, gmem_try_read(g->shared + PAGE_SIZE, &val));
	EXPECT_EQ(SIGSEGV, gmem_try_read(g->shared + 2 * PAGE_SIZE, &val));
	gmem_host_expect(g->shared, PAGE_SIZE, 0x51);
	gmem_host_expect(g->shared + 3 * PAGE_SIZE, PAGE_SIZE, 0x51);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x51);
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_host_expect(g->shared, PAGE_SIZE, 0);
	gmem_host_expect(g->shared + 3 * PAGE_SIZE, PAGE_SIZE, 0);
	gmem_guest_fill(g, 0, TEST_SIZE, 0x52);
	gmem_host_expect(g->shared + 3 * PAGE_SIZE, PAGE_SIZE, 0x52);
}

TEST_F(plain, mprotect)
{
	struct gmem_vm *g = &self->g;
	void *mem = gmem_map_prot(g->fd, TEST_SIZE, PROT_READ);
	uint64_t val;

	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(mem, TEST_SIZE, 0x51);
	EXPECT_EQ(SIGSEGV, gmem_try_write(mem, 1));

	ASSERT_EQ(0, mprotect(mem, HALF, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, gmem_try_write(mem, 0x52));
	EXPECT_EQ(SIGSEGV, gmem_try_write(mem + HALF, 1));
	gmem_guest_expect(g, 0, 8, 0x52);

	ASSERT_EQ(0, mprotect(mem, TEST_SIZE, PROT_NONE));
	EXPECT_EQ(SIGSEGV, gmem_try_read(mem, &val));
	ASSERT_EQ(0, mprotect(mem, TEST_SIZE, PROT_READ));
	gmem_host_expect(mem + HALF, HALF, 0x51);
	EXPECT_EQ(SIGSEGV, gmem_try_write(mem, 1));

	EXPECT_ERRNO(EACCES, mprotect(mem, TEST_SIZE, PROT_READ | PROT_EXEC));
	munmap(mem, TEST_SIZE);
}

TEST_F(plain, advice)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();

	EXPECT_EQ(0, madvise(g->shared, HALF, MADV_POPULATE_READ));
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_POPULATE_WRITE));
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	gmem_host_expect(g->shared, TEST_SIZE, 0);

	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_NORMAL));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_RANDOM));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_SEQUENTIAL));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_WILLNEED));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_DONTFORK));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_DONTDUMP));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_COLD));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_PAGEOUT));
	EXPECT_EQ(0, madvise(g->shared, TEST_SIZE, MADV_DONTNEED));
	EXPECT_ERRNO(EINVAL, madvise(g->shared, TEST_SIZE, MADV_FREE));

	/* None of them took anything from the memory. */
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	gmem_host_expect(g->shared, TEST_SIZE, 0x51);
	gmem_guest_expect(g, 0, TEST_SIZE, 0x51);
}

/* This one is PUNCH_HOLE by another name. */
TEST_F(plain, advice_to_remove)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();

	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	EXPECT_EQ(0, madvise(g->shared, HALF, MADV_REMOVE));
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_guest_expect(g, 0, HALF, 0);
	gmem_host_expect(g->shared, HALF, 0);
	gmem_guest_expect(g, HALF, HALF, 0x51);
}

/* A mapping that could have huge pages: mm looks at address and offset first. */
static void *map_aligned(int fd, size_t size, int prot)
{
	void *area = gmem_mmap(size + SZ_2M);
	void *mem = (void *)align_up((uintptr_t)area, SZ_2M);

	munmap(area, size + SZ_2M);
	TEST_ASSERT(mmap(mem, size, prot, MAP_SHARED | MAP_FIXED, fd, 0) == mem,
		    "mmap() of a guest_memfd failed");
	return mem;
}

/* Would mm like to make huge pages of the mapping at @mem? */
static bool may_be_huge(void *mem)
{
	bool found = false;
	char line[256];
	int eligible;
	FILE *f;

	f = fopen("/proc/self/smaps", "r");
	TEST_ASSERT(f, "cannot open smaps");
	while (fgets(line, sizeof(line), f)) {
		if (strtoul(line, NULL, 16) == (uintptr_t)mem)
			found = true;
		if (found && sscanf(line, "THPeligible: %d", &eligible) == 1)
			break;
	}
	TEST_ASSERT(!feof(f), "no mapping at %p in smaps", mem);
	fclose(f);
	return eligible;
}

/*
 * What mm collapses, where it is built for it, are clean pages of files that
 * nobody can write to.
 */
TEST_F(plain, mm_makes_no_huge_pages)
{
	const long huge = gmem_may_be_huge() ? 2 * SZ_2M / 1024 : 0;
	const int prots[] = { PROT_READ, PROT_READ | PROT_WRITE };
	const size_t size = 2 * SZ_2M;
	struct gmem_vm *g = &self->g;
	int fd = vm_create_guest_memfd(g->vm, size, GMEM_BOTH);
	void *mem;
	int i;

	if (access("/sys/kernel/mm/transparent_hugepage", F_OK))
		SKIP(return, "no transparent huge pages");

	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		mem = map_aligned(fd, size, prots[i]);
		ASSERT_EQ(0, madvise(mem, size, MADV_HUGEPAGE));
		EXPECT_FALSE(may_be_huge(mem));
		gmem_host_expect(mem, size, 0);
		EXPECT_ERRNO(EINVAL, madvise(mem, size, MADV_COLLAPSE));
		EXPECT_EQ(huge, gmem_read_long("/proc/self/smaps_rollup",
					       "FilePmdMapped:"));
		gmem_host_expect(mem, size, 0);
		munmap(mem, size);
	}
	close(fd);
}

TEST_F(plain, mlock)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();
	long locked = gmem_read_long("/proc/meminfo", "Mlocked:");
	uint64_t end;

	ASSERT_EQ(0, mlock(g->shared, TEST_SIZE));
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(g->shared, TEST_SIZE, 0x51);

	/* A hole is a hole. */
	gmem_punch(g->fd, 0, HALF);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_host_expect(g->shared, HALF, 0);
	ASSERT_EQ(0, munlock(g->shared, TEST_SIZE));
	gmem_host_expect(g->shared + HALF, HALF, 0x51);

	ASSERT_EQ(0, mlock(g->shared, TEST_SIZE));
	munmap(g->shared, TEST_SIZE);
	g->shared = gmem_map(g->fd, TEST_SIZE);
	gmem_guest_expect(g, HALF, HALF, 0x51);
	gmem_punch(g->fd, 0, TEST_SIZE);

	/* CPUs keep a few that were locked. */
	gmem_write_file("/proc/sys/vm/drop_caches", "1");
	end = gmem_now_ms() + 5000;
	while (gmem_read_long("/proc/meminfo", "Mlocked:") > locked &&
	       gmem_now_ms() < end) {
		gmem_file_pages();
		usleep(20000);
	}
	EXPECT_GE(locked, gmem_read_long("/proc/meminfo", "Mlocked:"));
}

TEST_F(plain, populated_from_the_start)
{
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();
	void *mem = mmap(NULL, TEST_SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_POPULATE | MAP_LOCKED, g->fd, 0);

	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(mem, TEST_SIZE, 0x51);
	munmap(mem, TEST_SIZE);
}

/* The page may be mapped by a guest: it stays where it is. */
TEST_F(plain, pages_do_not_move)
{
	struct gmem_vm *g = &self->g;
	void *pages[] = { g->shared, g->shared + PAGE_SIZE };
	int nodes[2] = {}, status[2] = { -1, -1 };

	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_host_expect(g->shared, TEST_SIZE, 0x51);
	syscall(__NR_move_pages, 0, 2, pages, nodes, status, 2);
	__gmem_write_file("/proc/sys/vm/compact_memory", "1");
	gmem_guest_fill(g, 0, TEST_SIZE, 0x52);
	gmem_host_expect(g->shared, TEST_SIZE, 0x52);
}

/*
 * get_user_pages()
 */

TEST_F(plain, process_vm_readv_and_writev)
{
	static uint64_t buf[2 * PAGE_SIZE / 8];
	struct iovec local = { buf, sizeof(buf) };
	struct gmem_vm *g = &self->g;
	struct iovec remote = { g->shared, sizeof(buf) };
	pid_t pid;

	/* Also the first touch */
	gmem_host_fill(buf, sizeof(buf), 0xbad);
	ASSERT_EQ(sizeof(buf), process_vm_readv(getpid(), &local, 1, &remote,
						1, 0));
	gmem_host_expect(buf, sizeof(buf), 0);

	gmem_host_fill(buf, sizeof(buf), 0x51);
	remote.iov_base = g->shared + HALF;
	ASSERT_EQ(sizeof(buf), process_vm_writev(getpid(), &local, 1, &remote,
						 1, 0));
	gmem_guest_expect(g, HALF, sizeof(buf), 0x51);

	/* Of another process */
	gmem_guest_fill(g, HALF, sizeof(buf), 0x52);
	pid = gmem_fork();
	if (!pid) {
		TEST_ASSERT_EQ(process_vm_readv(getppid(), &local, 1, &remote,
						1, 0), (long)sizeof(buf));
		gmem_host_expect(buf, sizeof(buf), 0x52);
		_exit(0);
	}
	gmem_wait_ok(pid);

	/* Not where there is nothing */
	remote.iov_base = gmem_map(g->fd, TEST_SIZE + PAGE_SIZE) + TEST_SIZE;
	remote.iov_len = 8;
	EXPECT_ERRNO(EFAULT, process_vm_readv(getpid(), &local, 1, &remote, 1,
					      0));
	munmap(remote.iov_base - TEST_SIZE, TEST_SIZE + PAGE_SIZE);
}

TEST_F(plain, system_calls_read_and_write_it)
{
	const size_t size = 8 * PAGE_SIZE;
	struct gmem_vm *g = &self->g;
	int fd = open("/tmp/gmem_mmap_test", O_RDWR | O_CREAT | O_TRUNC, 0600);

	ASSERT_LE(0, fd);
	gmem_guest_fill(g, 0, size, 0x51);
	ASSERT_EQ(size, pwrite(fd, g->shared, size, 0));
	ASSERT_EQ(size, pread(fd, g->shared + HALF, size, 0));
	gmem_guest_expect(g, HALF, size, 0x51);
	close(fd);
	unlink("/tmp/gmem_mmap_test");
}

/* From and to a disk, past its page cache */
TEST_F(plain, direct_io)
{
	struct gmem_vm *g = &self->g;
	int disk = open("/dev/ram0", O_RDWR | O_DIRECT);

	if (disk < 0)
		SKIP(return, "no RAM disk");

	/* Pages that the guest has written, then some that nobody has touched */
	gmem_guest_fill(g, 0, HALF, 0x51);
	ASSERT_EQ(HALF, pwrite(disk, g->shared, HALF, 0));
	ASSERT_EQ(HALF, pwrite(disk, g->shared + HALF, HALF, HALF));
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_EQ(HALF, pread(disk, g->shared + HALF, HALF, 0));
	gmem_guest_expect(g, HALF, HALF, 0x51);
	gmem_guest_expect(g, 0, HALF, 0);
	ASSERT_EQ(HALF, pread(disk, g->shared + HALF, HALF, HALF));
	gmem_guest_expect(g, HALF, HALF, 0);

	/* Not where there is nothing */
	ASSERT_EQ(0, munmap(g->shared, HALF));
	EXPECT_ERRNO(EFAULT, pread(disk, g->shared, HALF, 0));
	close(disk);
}

#define CORE_FILE "/tmp/gmem_core"

/* A file's shared memory is bit 3 of the filter, and not dumped by default. */
static void dump_core(const char *filter)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	int status;
	pid_t pid;

	unlink(CORE_FILE);
	pid = gmem_fork();
	if (!pid) {
		setrlimit(RLIMIT_CORE, &limit);
		gmem_write_file("/proc/self/coredump_filter", filter);
		signal(SIGABRT, SIG_DFL);
		abort();
	}
	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	TEST_ASSERT(WIFSIGNALED(status) && WCOREDUMP(status),
		    "no core: wait status 0x%x", status);
}

static int count_in_core(uint64_t val)
{
	static uint64_t buf[PAGE_SIZE / 8];
	int fd = open(CORE_FILE, O_RDONLY), nr = 0, i;

	TEST_ASSERT(fd >= 0, "cannot open %s", CORE_FILE);
	while (read(fd, buf, sizeof(buf)) == sizeof(buf)) {
		for (i = 0; i < ARRAY_SIZE(buf); i++)
			nr += buf[i] == val;
	}
	close(fd);
	return nr;
}

/* Whoever asks for it has shared memory in the dump, but never what is private. */
TEST_F(plain, core_dump)
{
	const uint64_t val = 0x7e57ab1edeadc0deull;
	struct gmem_vm *g = &self->g;
	void *mem;
	int fd;

	if (access("/proc/self/coredump_filter", W_OK))
		SKIP(return, "no core dumps");

	fd = vm_create_guest_memfd(g->vm, TEST_SIZE, GMEM_MMAP);
	mem = gmem_map(fd, TEST_SIZE);
	gmem_write_file("/proc/sys/kernel/core_pattern", CORE_FILE);
	gmem_guest_fill(g, 0, TEST_SIZE, val);
	dump_core("0x33");
	EXPECT_GT(100, count_in_core(val));
	dump_core("0x3b");
	EXPECT_LE(TEST_SIZE / 8, count_in_core(val));
	gmem_guest_expect(g, 0, TEST_SIZE, val);
	unlink(CORE_FILE);
	munmap(mem, TEST_SIZE);
	close(fd);
}

#define NR_PINS 8

/* Pages in a pipe are the ones that were there when they went in. */
TEST_F(plain, pages_in_a_pipe_outlive_a_hole)
{
	static uint64_t buf[NR_PINS * PAGE_SIZE / 8];
	struct gmem_vm *g = &self->g;
	struct iovec iov = { g->shared, sizeof(buf) };
	long base = gmem_file_pages();
	int p[2];

	gmem_guest_fill(g, 0, sizeof(buf), 0x51);
	ASSERT_EQ(0, pipe(p));
	ASSERT_LE(sizeof(buf), fcntl(p[1], F_SETPIPE_SZ, sizeof(buf)));
	ASSERT_EQ(sizeof(buf), vmsplice(p[1], &iov, 1, 0));

	/* One page as long as it is in the file */
	gmem_guest_fill(g, 0, PAGE_SIZE, 0x52);
	gmem_punch(g->fd, 0, sizeof(buf));
	EXPECT_TRUE(gmem_pages_are(base, 0));
	gmem_host_expect(g->shared, sizeof(buf), 0);
	gmem_guest_fill(g, 0, sizeof(buf), 0x53);
	gmem_pollute_free_memory();

	ASSERT_EQ(sizeof(buf), read(p[0], buf, sizeof(buf)));
	gmem_host_expect(buf, PAGE_SIZE, 0x52);
	gmem_host_expect(buf + PAGE_SIZE / 8, sizeof(buf) - PAGE_SIZE, 0x51);
	gmem_host_expect(g->shared, sizeof(buf), 0x53);
	close(p[0]);
	close(p[1]);
}

TEST_F(plain, pages_in_a_pipe_outlive_everything)
{
	static uint64_t buf[NR_PINS * PAGE_SIZE / 8];
	struct gmem_vm *g = &self->g;
	struct iovec iov = { g->shared, sizeof(buf) };
	int p[2];

	gmem_guest_fill(g, 0, sizeof(buf), 0x51);
	ASSERT_EQ(0, pipe(p));
	ASSERT_LE(sizeof(buf), fcntl(p[1], F_SETPIPE_SZ, sizeof(buf)));
	ASSERT_EQ(sizeof(buf), vmsplice(p[1], &iov, 1, 0));
	gmem_vm_free(g);
	gmem_pollute_free_memory();
	ASSERT_EQ(sizeof(buf), read(p[0], buf, sizeof(buf)));
	gmem_host_expect(buf, sizeof(buf), 0x51);
	close(p[0]);
	close(p[1]);
}

static int register_buffer(int ring, void *mem, size_t size)
{
	struct iovec iov = { mem, size };

	return syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS,
		       &iov, 1) ? errno : 0;
}

/* Pins for as long as somebody likes, as a device would have them */
TEST_F(plain, pins_outlive_a_hole)
{
	struct io_uring_params params = {};
	struct gmem_vm *g = &self->g;
	long base = gmem_file_pages();
	int ring;

	ring = syscall(__NR_io_uring_setup, 4, &params);
	if (ring < 0)
		SKIP(return, "no io_uring");

	ASSERT_EQ(0, register_buffer(ring, g->shared, HALF));
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_guest_fill(g, 0, TEST_SIZE, 0x51);
	gmem_punch(g->fd, 0, HALF);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES / 2));
	gmem_guest_expect(g, 0, HALF, 0);
	gmem_host_expect(g->shared, HALF, 0);
	gmem_guest_fill(g, 0, HALF, 0x52);
	gmem_host_expect(g->shared, HALF, 0x52);
	ASSERT_EQ(0, syscall(__NR_io_uring_register, ring,
			     IORING_UNREGISTER_BUFFERS, NULL, 0));

	/* And with the memory gone */
	ASSERT_EQ(0, register_buffer(ring, g->shared, TEST_SIZE));
	gmem_vm_free(g);
	close(ring);
}

int main(int argc, char *argv[])
{
	gmem_require_mmap();
	return test_harness_run(argc, argv);
}
