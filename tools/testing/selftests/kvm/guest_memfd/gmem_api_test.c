// SPDX-License-Identifier: GPL-2.0
/*
 * A guest_memfd as a file: what creation accepts, what fstat() and friends
 * say, how fallocate() checks its arguments, and that no other file operation
 * reads, writes, maps, resizes or re-opens it.
 */
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "gmem_util.h"

#define FILE_SIZE (4 * PAGE_SIZE)

FIXTURE(api)
{
	struct gmem_usage usage;
	struct kvm_vm *vm;
	int fd;
};

FIXTURE_VARIANT(api)
{
	unsigned long type;
};

FIXTURE_VARIANT_ADD(api, default_vm)
{
	.type = VM_TYPE_DEFAULT,
};

FIXTURE_VARIANT_ADD(api, sw_protected)
{
	.type = KVM_X86_SW_PROTECTED_VM,
};

FIXTURE_SETUP(api)
{
	gmem_usage_get(&self->usage);
	self->vm = vm_create_barebones_type(variant->type);
	self->fd = vm_create_guest_memfd(self->vm, FILE_SIZE, 0);
}

FIXTURE_TEARDOWN(api)
{
	close(self->fd);
	kvm_vm_free(self->vm);
	gmem_usage_check(&self->usage);
}

TEST_F(api, size_must_be_positive_and_page_aligned)
{
	uint64_t size;

	EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(self->vm, 0, 0));
	EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(self->vm, BIT_ULL(63), 0));
	EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(self->vm, -PAGE_SIZE, 0));
	for (size = 1; size < PAGE_SIZE; size++)
		EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(self->vm, size, 0));
}

TEST_F(api, size_is_limited_only_by_the_type)
{
	struct stat st;
	int fd;

	fd = vm_create_guest_memfd(self->vm, LLONG_MAX & ~(PAGE_SIZE - 1), 0);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(LLONG_MAX & ~(PAGE_SIZE - 1), st.st_size);
	close(fd);
}

TEST_F(api, only_advertised_flags_are_accepted)
{
	uint64_t valid = vm_check_cap(self->vm, KVM_CAP_GUEST_MEMFD_FLAGS);
	int bit, fd;

	for (bit = 0; bit < 64; bit++) {
		if (valid & BIT_ULL(bit))
			continue;
		fd = __vm_create_guest_memfd(self->vm, PAGE_SIZE, BIT_ULL(bit));
		EXPECT_TRUE(fd == -1 && errno == EINVAL)
			TH_LOG("flag bit %d is not advertised but accepted", bit);
	}
	EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(self->vm, PAGE_SIZE, ~0ull));
}

TEST_F(api, bad_argument_pointer)
{
	struct kvm_create_guest_memfd *arg = (void *)8;

	EXPECT_ERRNO(EFAULT, __vm_ioctl(self->vm, KVM_CREATE_GUEST_MEMFD, arg));
}

TEST_F(api, no_free_descriptor)
{
	struct rlimit old, none = {};

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none.rlim_max = old.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_ERRNO(EMFILE, __vm_create_guest_memfd(self->vm, PAGE_SIZE, 0));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
}

TEST_F(api, descriptor_flags)
{
	EXPECT_EQ(0, fcntl(self->fd, F_GETFD));
	EXPECT_EQ(O_RDWR, fcntl(self->fd, F_GETFL) & O_ACCMODE);
}

TEST_F(api, fstat_describes_the_memory)
{
	struct stat st;

	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(FILE_SIZE, st.st_size);
	EXPECT_EQ(PAGE_SIZE, st.st_blksize);
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(0, st.st_mode & 0077);
}

TEST_F(api, inodes_are_distinct)
{
	struct stat st1, st2;
	int fd = vm_create_guest_memfd(self->vm, FILE_SIZE, 0);

	ASSERT_EQ(0, fstat(self->fd, &st1));
	ASSERT_EQ(0, fstat(fd, &st2));
	EXPECT_EQ(st1.st_dev, st2.st_dev);
	EXPECT_NE(st1.st_ino, st2.st_ino);
	close(fd);
}

TEST_F(api, filesystem_is_our_own)
{
	struct statfs st;

	ASSERT_EQ(0, fstatfs(self->fd, &st));
	EXPECT_EQ(GUEST_MEMFD_MAGIC, st.f_type);
}

TEST_F(api, read_fails)
{
	char buf[64] = {};
	struct iovec iov = { .iov_base = buf, .iov_len = sizeof(buf) };

	EXPECT_ERRNO(EINVAL, read(self->fd, buf, sizeof(buf)));
	EXPECT_ERRNO(ESPIPE, pread(self->fd, buf, sizeof(buf), 0));
	EXPECT_ERRNO(EINVAL, readv(self->fd, &iov, 1));
	EXPECT_ERRNO(ESPIPE, preadv2(self->fd, &iov, 1, 0, RWF_NOWAIT));
}

TEST_F(api, write_fails)
{
	char buf[64] = {};
	struct iovec iov = { .iov_base = buf, .iov_len = sizeof(buf) };

	EXPECT_ERRNO(EINVAL, write(self->fd, buf, sizeof(buf)));
	EXPECT_ERRNO(ESPIPE, pwrite(self->fd, buf, sizeof(buf), 0));
	EXPECT_ERRNO(EINVAL, writev(self->fd, &iov, 1));
	EXPECT_ERRNO(ESPIPE, pwritev2(self->fd, &iov, 1, 0, 0));
}

TEST_F(api, in_kernel_copies_fail)
{
	off_t off_in = 0, off_out = 0;
	int memfd, pipefd[2];

	memfd = memfd_create("peer", 0);
	ASSERT_LE(0, memfd);
	ASSERT_EQ(0, ftruncate(memfd, FILE_SIZE));
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(1, write(pipefd[1], "x", 1));

	EXPECT_EQ(-1, splice(self->fd, &off_in, pipefd[1], NULL, 1, 0));
	EXPECT_EQ(-1, splice(pipefd[0], NULL, self->fd, &off_out, 1, 0));
	EXPECT_EQ(-1, sendfile(memfd, self->fd, &off_in, PAGE_SIZE));
	EXPECT_EQ(-1, sendfile(self->fd, memfd, &off_in, PAGE_SIZE));
	EXPECT_EQ(-1, copy_file_range(self->fd, &off_in, memfd, &off_out,
				      PAGE_SIZE, 0));
	EXPECT_EQ(-1, copy_file_range(memfd, &off_in, self->fd, &off_out,
				      PAGE_SIZE, 0));
	EXPECT_EQ(0, off_in);
	EXPECT_EQ(0, off_out);

	close(pipefd[0]);
	close(pipefd[1]);
	close(memfd);
}

TEST_F(api, mmap_fails)
{
	const int rw = PROT_READ | PROT_WRITE;

	EXPECT_ERRNO(ENODEV, mmap(NULL, PAGE_SIZE, rw, MAP_SHARED, self->fd, 0));
	EXPECT_ERRNO(ENODEV, mmap(NULL, PAGE_SIZE, rw, MAP_PRIVATE, self->fd, 0));
	EXPECT_ERRNO(ENODEV, mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED,
				  self->fd, 0));
	EXPECT_ERRNO(ENODEV, mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_SHARED,
				  self->fd, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE_SIZE, PROT_EXEC, MAP_PRIVATE,
				   self->fd, 0));
}

TEST_F(api, attributes_cannot_change)
{
	const struct timespec times[2] = {};
	struct stat st;

	EXPECT_ERRNO(EINVAL, ftruncate(self->fd, 0));
	EXPECT_ERRNO(EINVAL, ftruncate(self->fd, FILE_SIZE * 2));
	EXPECT_ERRNO(EINVAL, fchmod(self->fd, 0666));
	EXPECT_ERRNO(EINVAL, fchown(self->fd, 1, 1));
	EXPECT_ERRNO(EINVAL, futimens(self->fd, times));
	EXPECT_EQ(-1, fsetxattr(self->fd, "user.x", "x", 1, 0));

	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(FILE_SIZE, st.st_size);
	EXPECT_EQ(0, st.st_mode & 0077);
	EXPECT_EQ(0, st.st_uid);
}

TEST_F(api, other_operations_fail)
{
	EXPECT_ERRNO(EINVAL, fsync(self->fd));
	EXPECT_ERRNO(ESPIPE, lseek(self->fd, 0, SEEK_END));
	EXPECT_ERRNO(ESPIPE, lseek(self->fd, 0, SEEK_DATA));
	EXPECT_ERRNO(ENOTTY, ioctl(self->fd, KVM_CREATE_VCPU, 0));
	EXPECT_ERRNO(ENOTDIR, openat(self->fd, "x", O_RDONLY));
}

TEST_F(api, cannot_be_opened_again)
{
	char link[64] = {}, path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	ASSERT_LT(0, readlink(path, link, sizeof(link) - 1));
	EXPECT_STREQ("anon_inode:[kvm-gmem]", link);

	EXPECT_ERRNO(ENXIO, open(path, O_RDONLY));
	EXPECT_ERRNO(ENXIO, open(path, O_RDWR));
}

TEST_F(api, cannot_be_linked_or_executed)
{
	char *const argv[] = { "x", NULL };
	struct {
		struct file_handle handle;
		char space[MAX_HANDLE_SZ];
	} h = { .handle.handle_bytes = MAX_HANDLE_SZ };
	char path[64];
	int mount_id;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	EXPECT_EQ(-1, linkat(self->fd, "", AT_FDCWD, "/gmem", AT_EMPTY_PATH));
	EXPECT_EQ(-1, linkat(AT_FDCWD, path, AT_FDCWD, "/gmem",
			     AT_SYMLINK_FOLLOW));
	EXPECT_ERRNO(EACCES, syscall(SYS_execveat, self->fd, "", argv, argv,
				     AT_EMPTY_PATH));
	EXPECT_ERRNO(EOPNOTSUPP, name_to_handle_at(self->fd, "", &h.handle,
						   &mount_id, AT_EMPTY_PATH));
}

TEST_F(api, fallocate_modes)
{
	const int bad[] = {
		0,
		FALLOC_FL_PUNCH_HOLE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_COLLAPSE_RANGE,
		FALLOC_FL_INSERT_RANGE,
		FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE,
		GMEM_PUNCH | FALLOC_FL_ZERO_RANGE,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_ERRNO(EOPNOTSUPP, fallocate(self->fd, bad[i], 0, PAGE_SIZE));
	EXPECT_EQ(0, __gmem_allocate(self->fd, 0, FILE_SIZE));
	EXPECT_EQ(0, __gmem_punch(self->fd, 0, FILE_SIZE));
}

TEST_F(api, fallocate_alignment)
{
	const off_t near[] = { 1, PAGE_SIZE - 1, PAGE_SIZE + 1 };
	int i;

	for (i = 0; i < ARRAY_SIZE(near); i++) {
		EXPECT_EQ(EINVAL, __gmem_punch(self->fd, near[i], PAGE_SIZE));
		EXPECT_EQ(EINVAL, __gmem_punch(self->fd, 0, near[i]));
		EXPECT_EQ(EINVAL, __gmem_punch(self->fd, near[i], near[i]));
		EXPECT_EQ(EINVAL, __gmem_allocate(self->fd, near[i], PAGE_SIZE));
		EXPECT_EQ(EINVAL, __gmem_allocate(self->fd, 0, near[i]));
	}
	EXPECT_EQ(EINVAL, __gmem_punch(self->fd, 0, 0));
	EXPECT_EQ(EINVAL, __gmem_punch(self->fd, -PAGE_SIZE, PAGE_SIZE));
}

TEST_F(api, fallocate_past_the_end)
{
	EXPECT_EQ(EINVAL, __gmem_allocate(self->fd, FILE_SIZE, PAGE_SIZE));
	EXPECT_EQ(EINVAL, __gmem_allocate(self->fd, FILE_SIZE - PAGE_SIZE,
					  2 * PAGE_SIZE));
	EXPECT_EQ(0, __gmem_punch(self->fd, FILE_SIZE, PAGE_SIZE));
	EXPECT_EQ(0, __gmem_punch(self->fd, FILE_SIZE - PAGE_SIZE,
				  16 * PAGE_SIZE));
}

TEST_F(api, memory_is_there_when_allocated_and_gone_when_punched)
{
	const size_t size = SZ_8M;
	const long pages = size / PAGE_SIZE;
	int fd = vm_create_guest_memfd(self->vm, size, 0);
	long base = gmem_file_pages();

	gmem_allocate(fd, 0, size);
	EXPECT_TRUE(gmem_pages_are(base, pages));
	gmem_allocate(fd, 0, size);
	EXPECT_TRUE(gmem_pages_are(base, pages));
	gmem_punch(fd, size / 4, size / 2);
	EXPECT_TRUE(gmem_pages_are(base, pages / 2));
	close(fd);
	EXPECT_TRUE(gmem_pages_are(base, 0));
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
