// SPDX-License-Identifier: GPL-2.0
/*
 * What another user, who has no privileges and was sent the descriptor of a
 * guest_memfd, can do with it and what not: it entitles to the memory's existence,
 * and to let a guest have it, but not to read or write it.
 */
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#include "gmem_mmap_util.h"

#define NR_PAGES  64
#define TEST_SIZE (NR_PAGES * PAGE_SIZE)
#define NOBODY	  65534
#define PATTERN	  0x5ec1e7ull

FIXTURE(user)
{
	struct gmem_usage usage;
	struct gmem_vm g;
	mode_t kvm_mode;
};

static mode_t kvm_mode(void)
{
	struct stat st;

	TEST_ASSERT(!stat(KVM_DEV_PATH, &st), "stat() failed");
	return st.st_mode & 0777;
}

FIXTURE_SETUP(user)
{
	gmem_usage_get(&self->usage);
	self->kvm_mode = kvm_mode();
	gmem_vm_create(&self->g, TEST_SIZE);
	gmem_guest_fill(&self->g, 0, TEST_SIZE, PATTERN);
}

FIXTURE_TEARDOWN(user)
{
	EXPECT_EQ(0, chmod(KVM_DEV_PATH, self->kvm_mode));
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

/*
 * Be another user, who has nothing but what comes through @sock: not even
 * inherited descriptors.
 */
static void become_nobody(int sock)
{
	TEST_ASSERT_EQ(dup2(sock, 3), 3);
	TEST_ASSERT(!syscall(SYS_close_range, 4, ~0u, 0), "close_range() failed");
	TEST_ASSERT(!setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) &&
		    !setresuid(NOBODY, NOBODY, NOBODY), "cannot drop root");
}

/* Send @fd to another user, who does @fn with it. */
static void as_nobody(int fd, void (*fn)(int fd))
{
	int sock[2];
	pid_t pid;

	TEST_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, sock), "socketpair()");
	gmem_send_fd(sock[0], fd);
	pid = gmem_fork();
	if (!pid) {
		become_nobody(sock[1]);
		fn(gmem_receive_fd(3));
		_exit(0);
	}
	close(sock[0]);
	close(sock[1]);
	gmem_wait_ok(pid);
}

#define TEST_ERRNO(err, expr)						\
do {									\
	errno = 0;							\
	TEST_ASSERT((long)(expr) == -1 && errno == (err),		\
		    "%s should fail with %s", #expr, #err);		\
} while (0)

static void cannot_read_or_write(int fd)
{
	char buf[64] = {};
	off_t off = 0;
	int pipefd[2];

	TEST_ASSERT(!pipe(pipefd), "pipe() failed");
	TEST_ERRNO(EINVAL, read(fd, buf, sizeof(buf)));
	TEST_ERRNO(EINVAL, write(fd, buf, sizeof(buf)));
	TEST_ERRNO(ESPIPE, pread(fd, buf, sizeof(buf), 0));
	TEST_ERRNO(ESPIPE, pwrite(fd, buf, sizeof(buf), 0));
	TEST_ASSERT(splice(fd, &off, pipefd[1], NULL, 64, 0) < 0, "splice()");
	TEST_ERRNO(ENODEV, mmap(NULL, TEST_SIZE, PROT_READ, MAP_SHARED, fd, 0));
	TEST_ERRNO(ENODEV, mmap(NULL, TEST_SIZE, PROT_READ, MAP_PRIVATE, fd, 0));
}

TEST_F(user, cannot_read_or_write)
{
	as_nobody(self->g.fd, cannot_read_or_write);
	gmem_guest_expect(&self->g, 0, TEST_SIZE, PATTERN);
}

static void cannot_change_the_file(int fd)
{
	const struct timespec times[2] = {};
	unsigned int flags = 0x10;	/* FS_IMMUTABLE_FL */

	TEST_ERRNO(EINVAL, ftruncate(fd, 0));
	TEST_ERRNO(EINVAL, ftruncate(fd, 2 * TEST_SIZE));
	/* The owner of the file is root: that comes first. */
	TEST_ASSERT(fchmod(fd, 0666) < 0, "fchmod() succeeds");
	TEST_ASSERT(fchown(fd, NOBODY, NOBODY) < 0, "fchown() succeeds");
	TEST_ASSERT(futimens(fd, times) < 0, "futimens() succeeds");
	TEST_ASSERT(fsetxattr(fd, "user.x", "x", 1, 0) < 0, "fsetxattr()");
	TEST_ASSERT(fsetxattr(fd, "security.x", "x", 1, 0) < 0, "fsetxattr()");
	TEST_ASSERT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0, "F_ADD_SEALS");
	TEST_ASSERT(ioctl(fd, _IOW('f', 2, long), &flags) < 0, "FS_IOC_SETFLAGS");
}

TEST_F(user, cannot_change_the_file)
{
	struct stat before, after;

	ASSERT_EQ(0, fstat(self->g.fd, &before));
	as_nobody(self->g.fd, cannot_change_the_file);
	ASSERT_EQ(0, fstat(self->g.fd, &after));
	EXPECT_EQ(before.st_size, after.st_size);
	EXPECT_EQ(before.st_mode, after.st_mode);
	EXPECT_EQ(before.st_uid, after.st_uid);
	gmem_guest_expect(&self->g, 0, TEST_SIZE, PATTERN);
}

static void cannot_get_another_file(int fd)
{
	char *const argv[] = { "x", NULL };
	char path[64], dir[] = "/dev/shm/gmem_user_XXXXXX";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* Not even root can: see gmem_api_test. */
	TEST_ERRNO(EACCES, open(path, O_RDONLY));
	TEST_ERRNO(EACCES, open(path, O_RDWR));
	TEST_ERRNO(EACCES, syscall(SYS_execveat, fd, "", argv, argv,
				   AT_EMPTY_PATH));

	TEST_ASSERT(mkdtemp(dir) && !chdir(dir), "cannot have a directory");
	TEST_ASSERT(linkat(AT_FDCWD, path, AT_FDCWD, "x", AT_SYMLINK_FOLLOW) < 0,
		    "linkat() succeeds");
	TEST_ASSERT(linkat(fd, "", AT_FDCWD, "x", AT_EMPTY_PATH) < 0,
		    "linkat() succeeds");
	rmdir(dir);
}

TEST_F(user, cannot_get_another_file)
{
	as_nobody(self->g.fd, cannot_get_another_file);
}

/* The process that has the VM, and the number of the memory's descriptor there */
static int owner_pid, owner_fd;

static void cannot_take_from_the_owner(int fd)
{
	char path[64];
	int pidfd;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", owner_pid, owner_fd);
	TEST_ERRNO(EACCES, open(path, O_RDWR));
	snprintf(path, sizeof(path), "/proc/%d/mem", owner_pid);
	TEST_ERRNO(EACCES, open(path, O_RDONLY));

	pidfd = syscall(SYS_pidfd_open, owner_pid, 0);
	TEST_ASSERT(pidfd >= 0, "pidfd_open() failed");
	TEST_ERRNO(EPERM, syscall(SYS_pidfd_getfd, pidfd, owner_fd, 0));
}

TEST_F(user, cannot_take_from_the_owner)
{
	owner_pid = getpid();
	owner_fd = self->g.fd;
	as_nobody(self->g.fd, cannot_take_from_the_owner);
}

/* A descriptor is no way to be somebody who may have VMs. */
static void cannot_have_a_vm(int fd)
{
	TEST_ERRNO(EACCES, open(KVM_DEV_PATH, O_RDWR));
	TEST_ERRNO(ENOTTY, ioctl(fd, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM));
	TEST_ERRNO(ENOTTY, ioctl(fd, KVM_GET_API_VERSION, 0));
}

TEST_F(user, cannot_have_a_vm)
{
	ASSERT_EQ(0, chmod(KVM_DEV_PATH, 0600));
	as_nobody(self->g.fd, cannot_have_a_vm);
}

static void look_at_it(int fd)
{
	struct statfs fs;
	struct stat st;

	TEST_ASSERT(!fstat(fd, &st) && st.st_size == TEST_SIZE, "fstat()");
	TEST_ASSERT(!fstatfs(fd, &fs) && fs.f_type == GUEST_MEMFD_MAGIC,
		    "fstatfs()");
	close(fd);
}

TEST_F(user, may_look_and_close)
{
	as_nobody(self->g.fd, look_at_it);
	gmem_guest_expect(&self->g, 0, TEST_SIZE, PATTERN);
}

/* Whoever gives the descriptor away gives away the memory's existence. */
static void take_half_away(int fd)
{
	gmem_punch(fd, 0, TEST_SIZE / 2);
	gmem_allocate(fd, 0, TEST_SIZE / 4);
}

TEST_F(user, may_punch_and_allocate)
{
	long base = gmem_file_pages();
	const size_t half = TEST_SIZE / 2;

	as_nobody(self->g.fd, take_half_away);
	EXPECT_TRUE(gmem_pages_are(base, -NR_PAGES / 4));
	gmem_guest_expect(&self->g, 0, half, 0);
	gmem_guest_expect(&self->g, half, half, PATTERN);
}

/* To have a VM is not enough.  It is the link that lets that have the memory. */
static void cannot_bind_it(int fd)
{
	struct gmem_vm own;

	gmem_vm_create_empty(&own, TEST_SIZE);
	TEST_ASSERT_EQ(__gmem_set_slot(own.vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD,
				       GMEM_GPA, TEST_SIZE, own.shared, fd, 0),
		       EINVAL);
	gmem_vm_free(&own);
}

TEST_F(user, cannot_bind_it_to_a_vm)
{
	ASSERT_EQ(0, chmod(KVM_DEV_PATH, 0666));
	as_nobody(self->g.fd, cannot_bind_it);
}

static void link_and_read(int fd)
{
	struct gmem_vm own;

	gmem_vm_create_linked(&own, TEST_SIZE, fd, KVM_LINK_GUEST_MEMFD_SHARE);
	vm_mem_set_private(own.vm, GMEM_GPA, TEST_SIZE);
	gmem_guest_expect(&own, 0, TEST_SIZE, PATTERN);
	gmem_guest_fill(&own, 0, PAGE_SIZE, 0xb0b);
	cannot_read_or_write(own.fd);
	gmem_vm_free(&own);
}

TEST_F(user, may_link_it_to_a_vm)
{
	ASSERT_EQ(0, chmod(KVM_DEV_PATH, 0666));
	as_nobody(self->g.fd, link_and_read);
	gmem_guest_expect(&self->g, 0, PAGE_SIZE, 0xb0b);
	gmem_guest_expect(&self->g, PAGE_SIZE, TEST_SIZE - PAGE_SIZE, PATTERN);
}

static void use_lesser_rights(int fd)
{
	const uint64_t readonly = KVM_LINK_GUEST_MEMFD_SHARE |
				  KVM_LINK_GUEST_MEMFD_READONLY;
	struct gmem_vm own;
	int link;

	TEST_ASSERT_EQ(__gmem_punch(fd, 0, TEST_SIZE), EPERM);
	TEST_ASSERT_EQ(__gmem_allocate(fd, 0, TEST_SIZE), EPERM);

	gmem_vm_create_empty(&own, TEST_SIZE);
	TEST_ASSERT_EQ(__gmem_link(own.vm, fd, 0, &link), EPERM);
	TEST_ASSERT_EQ(__gmem_link(own.vm, fd, KVM_LINK_GUEST_MEMFD_SHARE, &link),
		       EPERM);
	own.fd = gmem_link(own.vm, fd, readonly);
	gmem_vm_bind(&own);
	vm_mem_set_private(own.vm, GMEM_GPA, TEST_SIZE);
	gmem_guest_expect(&own, 0, TEST_SIZE, PATTERN);
	TEST_ASSERT_EQ(__gmem_guest_fill(&own, 0, PAGE_SIZE, 0xbad), EFAULT);
	TEST_ASSERT_EQ(__gmem_punch(own.fd, 0, TEST_SIZE), EPERM);
	gmem_vm_free(&own);
}

/* A link with fewer rights is what to send. */
TEST_F(user, gets_no_more_rights_than_were_sent)
{
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	int link = gmem_link(vm, self->g.fd, KVM_LINK_GUEST_MEMFD_SHARE |
					     KVM_LINK_GUEST_MEMFD_READONLY);

	ASSERT_EQ(0, chmod(KVM_DEV_PATH, 0666));
	as_nobody(link, use_lesser_rights);
	gmem_guest_expect(&self->g, 0, TEST_SIZE, PATTERN);
	close(link);
	kvm_vm_free(vm);
}

/* Memory that can be mapped is no secret from who has the descriptor. */
static void map_and_write(int fd)
{
	uint64_t *mem = gmem_map(fd, TEST_SIZE);

	TEST_ASSERT_EQ(mem[0], PATTERN);
	mem[0] = 0xb0b;
	TEST_ERRNO(EPERM, mmap(NULL, TEST_SIZE, PROT_READ | PROT_EXEC,
			       MAP_SHARED, fd, 0));
}

static void map_read_only(int fd)
{
	uint64_t *mem = gmem_map_prot(fd, TEST_SIZE, PROT_READ);

	TEST_ASSERT_EQ(mem[0], 0xb0b);
	TEST_ERRNO(EACCES, mprotect(mem, TEST_SIZE, PROT_READ | PROT_WRITE));
	TEST_ERRNO(EACCES, mmap(NULL, TEST_SIZE, PROT_READ | PROT_WRITE,
				MAP_SHARED, fd, 0));
}

TEST_F(user, may_map_what_can_be_mapped)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct gmem_vm plain;
	int link;

	gmem_plain_create(&plain, TEST_SIZE);
	gmem_guest_fill(&plain, 0, TEST_SIZE, PATTERN);
	as_nobody(plain.fd, map_and_write);
	gmem_guest_expect(&plain, 0, sizeof(uint64_t), 0xb0b);

	link = gmem_link(vm, plain.fd, KVM_LINK_GUEST_MEMFD_SHARE |
				       KVM_LINK_GUEST_MEMFD_READONLY);
	as_nobody(link, map_read_only);
	close(link);
	kvm_vm_free(vm);
	gmem_vm_free(&plain);
}

/* Who has the descriptor keeps the memory, not the VM. */
TEST_F(user, keeps_the_memory_alive)
{
	struct gmem_vm *g = &self->g;
	int sock[2], vms = gmem_count_vms();
	long base = gmem_file_pages();
	pid_t pid;
	char c;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	gmem_send_fd(sock[0], g->fd);
	pid = gmem_fork();
	if (!pid) {
		/* This was inherited, and holds the vCPU. */
		munmap(g->vcpu->run, 3 * PAGE_SIZE);
		become_nobody(sock[1]);
		gmem_receive_fd(3);
		TEST_ASSERT(write(3, "x", 1) == 1 && read(3, &c, 1) == 1,
			    "cannot talk");
		_exit(0);
	}
	ASSERT_EQ(1, read(sock[0], &c, 1));
	gmem_vm_free(g);
	EXPECT_EQ(vms - 1, gmem_count_vms());
	EXPECT_TRUE(gmem_pages_are(base, 0));
	ASSERT_EQ(1, write(sock[0], "x", 1));
	gmem_wait_ok(pid);
	EXPECT_TRUE(gmem_pages_are(base, -NR_PAGES));
	close(sock[0]);
	close(sock[1]);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	gmem_require_mmap();
	return test_harness_run(argc, argv);
}
