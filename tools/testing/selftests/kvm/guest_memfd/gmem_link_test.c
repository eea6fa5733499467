// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_LINK_GUEST_MEMFD without its flags: what may be linked into which VM, what
 * a pending view is good for, and how it becomes active when the memory's owner
 * goes.  Moves have a test of their own, and so has sharing.
 */
#include <sys/resource.h>

#include "gmem_link_util.h"

#define TEST_SIZE SZ_4M
#define NR_PAGES  ((long)(TEST_SIZE / PAGE_SIZE))

#define SHARE	     KVM_LINK_GUEST_MEMFD_SHARE
#define READONLY     KVM_LINK_GUEST_MEMFD_READONLY
#define NO_FALLOCATE KVM_LINK_GUEST_MEMFD_NO_FALLOCATE

static struct kvm_vm *create_vm(void)
{
	return vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
}

static int __link_raw(struct kvm_vm *vm, struct kvm_link_guest_memfd *arg)
{
	int fd = __vm_ioctl(vm, KVM_LINK_GUEST_MEMFD, arg);

	return fd < 0 ? errno : 0;
}

/* Link @fd into a new VM; the VM is dead when this returns. */
static int link_into_dead_vm(int fd, uint64_t flags)
{
	struct kvm_vm *vm = create_vm();
	int link = gmem_link(vm, fd, flags);

	kvm_vm_free(vm);
	return link;
}

static void expect_no_fallocate(int fd)
{
	TEST_ASSERT_EQ(__gmem_allocate(fd, 0, PAGE_SIZE), EPERM);
	TEST_ASSERT_EQ(__gmem_punch(fd, 0, PAGE_SIZE), EPERM);
}

/*
 * The ioctl: two VMs without vCPUs, and the guest_memfd of the first
 */

FIXTURE(ioctl)
{
	struct gmem_usage usage;
	struct kvm_vm *src, *dst;
	int fd;
};

FIXTURE_SETUP(ioctl)
{
	gmem_usage_get(&self->usage);
	self->src = create_vm();
	self->dst = create_vm();
	self->fd = vm_create_guest_memfd(self->src, TEST_SIZE, 0);
}

FIXTURE_TEARDOWN(ioctl)
{
	close(self->fd);
	kvm_vm_free(self->src);
	kvm_vm_free(self->dst);
	gmem_usage_check(&self->usage);
}

TEST_F(ioctl, capability_lists_the_flags)
{
	const int flags = SHARE | READONLY | NO_FALLOCATE | 1;
	struct kvm_vm *vm = vm_create_barebones();

	EXPECT_EQ(0xf, flags);
	EXPECT_EQ(flags, kvm_check_cap(KVM_CAP_GUEST_MEMFD_LINK));
	EXPECT_EQ(flags, vm_check_cap(self->src, KVM_CAP_GUEST_MEMFD_LINK));
	EXPECT_EQ(flags, vm_check_cap(vm, KVM_CAP_GUEST_MEMFD_LINK));
	kvm_vm_free(vm);
}

/* What the selftest of the public RFC asserts, on VMs of the default type */
TEST_F(ioctl, default_vms_link_as_in_the_rfc)
{
	struct kvm_vm *src = vm_create_barebones();
	struct kvm_vm *dst = vm_create_barebones();
	int fd = vm_create_guest_memfd(src, TEST_SIZE, 0);
	struct stat st_fd, st_link;
	int link;

	EXPECT_LINK_ERRNO(EINVAL, dst, 99, 0);
	EXPECT_LINK_ERRNO(EINVAL, dst, 0, 1);
	EXPECT_LINK_ERRNO(EINVAL, dst, fd, 1);
	EXPECT_LINK_ERRNO(EINVAL, src, fd, 1);

	link = gmem_link(dst, fd, 0);
	EXPECT_NE(fd, link);
	ASSERT_EQ(0, fstat(fd, &st_fd));
	ASSERT_EQ(0, fstat(link, &st_link));
	EXPECT_EQ(st_fd.st_ino, st_link.st_ino);

	close(fd);
	close(link);
	kvm_vm_free(src);
	kvm_vm_free(dst);
}

TEST_F(ioctl, vm_types_can_be_mixed)
{
	const uint64_t flags[] = { 0, SHARE };
	struct kvm_vm *vm = vm_create_barebones();
	int i, link, back;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		link = gmem_link(vm, self->fd, flags[i]);
		close(link);

		link = link_into_dead_vm(self->fd, SHARE);
		back = gmem_link(vm, link, flags[i]);
		close(link);
		close(back);
	}
	kvm_vm_free(vm);
}

TEST_F(ioctl, link_is_another_file_of_the_same_memory)
{
	int link = gmem_link(self->dst, self->fd, 0);
	struct stat st_fd, st_link;

	ASSERT_EQ(0, fstat(self->fd, &st_fd));
	ASSERT_EQ(0, fstat(link, &st_link));
	EXPECT_EQ(st_fd.st_dev, st_link.st_dev);
	EXPECT_EQ(st_fd.st_ino, st_link.st_ino);
	EXPECT_EQ(st_fd.st_mode, st_link.st_mode);
	EXPECT_EQ(TEST_SIZE, st_link.st_size);

	EXPECT_EQ(0, fcntl(link, F_GETFD));
	EXPECT_EQ(fcntl(self->fd, F_GETFL), fcntl(link, F_GETFL));

	/* Flags of a file are shared by its descriptors, not by other files. */
	ASSERT_EQ(0, fcntl(link, F_SETFL, O_NONBLOCK));
	EXPECT_TRUE(fcntl(link, F_GETFL) & O_NONBLOCK);
	EXPECT_FALSE(fcntl(self->fd, F_GETFL) & O_NONBLOCK);
	close(link);
}

TEST_F(ioctl, flags_must_be_known)
{
	const uint64_t known = SHARE | READONLY | NO_FALLOCATE;
	int i;

	for (i = 0; i < 64; i++) {
		if (BIT_ULL(i) & known)
			continue;
		EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, BIT_ULL(i));
		EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd,
				  BIT_ULL(i) | SHARE);
	}
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, ~0ull);
}

TEST_F(ioctl, rights_are_taken_with_share_only)
{
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, READONLY);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, NO_FALLOCATE);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, READONLY | NO_FALLOCATE);
}

TEST_F(ioctl, reserved_words_must_be_zero)
{
	struct kvm_link_guest_memfd arg = { .fd = self->fd };
	int i;

	for (i = 0; i < ARRAY_SIZE(arg.reserved); i++) {
		arg.reserved[i] = 1;
		EXPECT_EQ(EINVAL, __link_raw(self->dst, &arg));
		arg.reserved[i] = BIT_ULL(63);
		EXPECT_EQ(EINVAL, __link_raw(self->dst, &arg));
		arg.reserved[i] = 0;
	}
}

static int __link_number(struct kvm_vm *vm, uint64_t fd)
{
	struct kvm_link_guest_memfd arg = { .fd = fd };

	return __link_raw(vm, &arg);
}

TEST_F(ioctl, descriptor_must_be_open)
{
	struct kvm_vm *dst = self->dst;

	EXPECT_EQ(EINVAL, __link_number(dst, 99));
	EXPECT_EQ(EINVAL, __link_number(dst, INT_MAX));
	EXPECT_EQ(EINVAL, __link_number(dst, INT_MIN));
	EXPECT_EQ(EINVAL, __link_number(dst, UINT_MAX));
	EXPECT_EQ(EINVAL, __link_number(dst, -1));
	EXPECT_EQ(EINVAL, __link_number(dst, self->fd | BIT_ULL(31)));
	EXPECT_EQ(EINVAL, __link_number(dst, self->fd | BIT_ULL(32)));
	EXPECT_EQ(EINVAL, __link_number(dst, self->fd | BIT_ULL(63)));
}

TEST_F(ioctl, descriptor_must_be_a_guest_memfd)
{
	struct kvm_vm *vm, *dst = self->dst;
	struct kvm_vcpu *vcpu;
	int memfd, path_fd;
	char path[32];

	vm = vm_create_with_one_vcpu(&vcpu, NULL);
	memfd = memfd_create("not a guest_memfd", 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	path_fd = open(path, O_PATH);
	ASSERT_LE(0, path_fd);

	EXPECT_LINK_ERRNO(EINVAL, dst, STDIN_FILENO, 0);
	EXPECT_LINK_ERRNO(EINVAL, dst, vm->kvm_fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, dst, vm->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, dst, dst->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, dst, vcpu->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, dst, memfd, 0);
	EXPECT_LINK_ERRNO(EINVAL, dst, path_fd, 0);
	close(path_fd);
	close(memfd);
	kvm_vm_free(vm);
}

TEST_F(ioctl, argument_must_be_readable)
{
	void *mem = gmem_mmap(2 * PAGE_SIZE);
	struct kvm_link_guest_memfd *arg;

	ASSERT_EQ(0, mprotect(mem + PAGE_SIZE, PAGE_SIZE, PROT_NONE));
	arg = mem + PAGE_SIZE - sizeof(*arg) / 2;
	arg->fd = self->fd;
	EXPECT_EQ(EFAULT, __link_raw(self->dst, arg));
	EXPECT_EQ(EFAULT, __link_raw(self->dst, (void *)8));
}

TEST_F(ioctl, vm_has_one_view)
{
	int link;

	EXPECT_LINK_ERRNO(EINVAL, self->src, self->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->src, self->fd, SHARE);

	link = gmem_link(self->dst, self->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, SHARE);
	EXPECT_LINK_ERRNO(EINVAL, self->src, link, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, link, 0);
	close(link);

	link = gmem_link(self->dst, self->fd, SHARE);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, SHARE);
	EXPECT_LINK_ERRNO(EINVAL, self->src, link, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->src, link, SHARE);
	close(link);
}

TEST_F(ioctl, any_descriptor_of_the_view_will_do)
{
	int copy = dup(self->fd);
	int link;

	EXPECT_LINK_ERRNO(EINVAL, self->src, copy, SHARE);
	link = gmem_link(self->dst, copy, SHARE);
	close(copy);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, SHARE);
	close(link);
}

TEST_F(ioctl, one_link_is_pending_at_a_time)
{
	struct kvm_vm *third = create_vm();
	int link, other;

	link = gmem_link(self->dst, self->fd, 0);
	EXPECT_LINK_ERRNO(EBUSY, third, self->fd, 0);
	EXPECT_LINK_ERRNO(EBUSY, third, self->fd, SHARE);
	EXPECT_LINK_ERRNO(EBUSY, third, self->fd, SHARE | READONLY);
	EXPECT_LINK_ERRNO(EINVAL, third, link, 0);
	EXPECT_LINK_ERRNO(EINVAL, third, link, SHARE);
	close(link);

	/* Its end makes room. */
	link = gmem_link(third, self->fd, SHARE);
	other = gmem_link(self->dst, link, 0);
	close(link);
	EXPECT_LINK_ERRNO(EBUSY, third, self->fd, 0);
	close(other);
	kvm_vm_free(third);
}

TEST_F(ioctl, memories_of_a_vm_are_independent)
{
	int own = vm_create_guest_memfd(self->dst, TEST_SIZE, 0);
	int link = gmem_link(self->dst, self->fd, 0);
	int back = gmem_link(self->src, own, 0);

	expect_no_fallocate(link);
	expect_no_fallocate(back);
	gmem_allocate(own, 0, TEST_SIZE);
	gmem_allocate(self->fd, 0, TEST_SIZE);
	close(own);
	gmem_allocate(back, 0, TEST_SIZE);
	expect_no_fallocate(link);
	close(link);
	close(back);
}

#define NR_FILES 500

/* Whoever had the kernel's memory before: nothing is pending, nobody is active. */
TEST_F(ioctl, new_memory_has_no_past)
{
	const struct rlimit limit = { 2 * NR_FILES, 2 * NR_FILES };
	static int fds[NR_FILES];
	int i, link;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	gmem_pollute_free_memory();
	for (i = 0; i < NR_FILES; i++)
		fds[i] = vm_create_guest_memfd(self->src, PAGE_SIZE, 0);
	for (i = 0; i < NR_FILES; i++) {
		close(gmem_link(self->dst, fds[i], SHARE));
		link = gmem_link(self->dst, fds[i], 0);
		expect_no_fallocate(link);
		close(fds[i]);
		gmem_allocate(link, 0, PAGE_SIZE);
		close(link);
	}
}

TEST_F(ioctl, no_descriptor_is_left)
{
	const struct rlimit few = { dup(self->fd), 1024 };
	const struct rlimit many = { 1024, 1024 };
	int link;

	close(few.rlim_cur);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	EXPECT_LINK_ERRNO(EMFILE, self->dst, self->fd, 0);
	EXPECT_LINK_ERRNO(EMFILE, self->dst, self->fd, SHARE);
	/* The arguments are looked at first. */
	EXPECT_LINK_ERRNO(EINVAL, self->src, self->fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->dst, self->fd, 1);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &many));

	/* What has failed is not pending, and no view. */
	link = gmem_link(self->dst, self->fd, 0);
	EXPECT_EQ(few.rlim_cur, link);
	close(link);
}

TEST_F(ioctl, vm_of_another_process_cannot_have_it)
{
	pid_t pid = gmem_fork();
	int link;

	if (!pid) {
		TEST_ASSERT_EQ(__gmem_link(self->dst, self->fd, 0, &link), EIO);
		TEST_ASSERT_EQ(__gmem_link(self->src, self->fd, 0, &link), EIO);
		_exit(0);
	}
	gmem_wait_ok(pid);
	close(gmem_link(self->dst, self->fd, 0));
}

/* Bind a page of @fd in @vm. */
static int __bind_page(struct kvm_vm *vm, uint32_t slot, int fd, uint64_t offset)
{
	static void *shared;

	if (!shared)
		shared = gmem_mmap(PAGE_SIZE);
	return __gmem_set_slot(vm, slot, KVM_MEM_GUEST_MEMFD,
			       GMEM_GPA + slot * SZ_1M, PAGE_SIZE, shared, fd,
			       offset);
}

TEST_F(ioctl, view_is_bound_by_its_own_vm_only)
{
	const uint64_t flags[] = { 0, SHARE };
	int i, link;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		link = gmem_link(self->dst, self->fd, flags[i]);
		EXPECT_EQ(EINVAL, __bind_page(self->dst, 1, self->fd, 0));
		EXPECT_EQ(EINVAL, __bind_page(self->src, 1, link, 0));
		EXPECT_EQ(EINVAL, __bind_page(self->dst, 1, link, TEST_SIZE));
		EXPECT_EQ(0, __bind_page(self->dst, 1, link, 0));
		EXPECT_EQ(EEXIST, __bind_page(self->dst, 2, link, 0));
		EXPECT_EQ(0, __bind_page(self->dst, 2, link, PAGE_SIZE));
		/* Bindings are the view's own. */
		EXPECT_EQ(0, __bind_page(self->src, 1, self->fd, 0));
		gmem_delete_slot(self->dst, 1);
		gmem_delete_slot(self->dst, 2);
		gmem_delete_slot(self->src, 1);
		close(link);
	}
}

/*
 * The pending view: a source that has filled the first half of its memory, and
 * a destination that has it all bound, and private
 */

#define HALF (TEST_SIZE / 2)

FIXTURE(pending)
{
	struct gmem_usage usage;
	struct gmem_vm src, dst;
};

/* A VM that gets memory by a link, and has all of it private. */
static void create_heir(struct gmem_vm *g, int fd)
{
	gmem_vm_create_linked(g, TEST_SIZE, fd, 0);
	vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
}

static void create_pair(struct gmem_vm *src, struct gmem_vm *dst)
{
	gmem_vm_create(src, TEST_SIZE);
	gmem_guest_fill(src, 0, HALF, 0x50);
	create_heir(dst, src->fd);
	gmem_expect_no_access(dst, 0);
}

FIXTURE_SETUP(pending)
{
	gmem_usage_get(&self->usage);
	create_pair(&self->src, &self->dst);
}

FIXTURE_TEARDOWN(pending)
{
	gmem_vm_free(&self->src);
	gmem_vm_free(&self->dst);
	gmem_usage_check(&self->usage);
}

TEST_F(pending, guest_gets_nothing_and_source_loses_nothing)
{
	struct gmem_vm *src = &self->src, *dst = &self->dst;
	long base = gmem_file_pages();
	uint64_t offset, left;

	for (offset = 0; offset < TEST_SIZE; offset += TEST_SIZE / 8) {
		gmem_expect_no_access(dst, offset);
		EXPECT_EQ(EFAULT, __gmem_pre_fault(dst->vcpu, GMEM_GPA + offset,
						   PAGE_SIZE, 0, &left));
		EXPECT_EQ(PAGE_SIZE, left);
	}
	EXPECT_EQ(EFAULT, __gmem_pre_fault(dst->vcpu, GMEM_GPA, TEST_SIZE, 0,
					   NULL));
	EXPECT_EQ(EPERM, __gmem_allocate(dst->fd, 0, TEST_SIZE));
	EXPECT_EQ(EPERM, __gmem_punch(dst->fd, 0, TEST_SIZE));
	EXPECT_TRUE(gmem_pages_are(base, 0));

	gmem_guest_expect(src, 0, HALF, 0x50);
	gmem_guest_expect(src, HALF, HALF, 0);
}

TEST_F(pending, fallocate_looks_at_its_arguments_first)
{
	int fd = self->dst.fd;

	EXPECT_ERRNO(EOPNOTSUPP, fallocate(fd, 0, 0, PAGE_SIZE));
	EXPECT_ERRNO(EOPNOTSUPP, fallocate(fd, FALLOC_FL_ZERO_RANGE, 0,
					   PAGE_SIZE));
	EXPECT_EQ(EINVAL, __gmem_punch(fd, 1, PAGE_SIZE));
	EXPECT_EQ(EINVAL, __gmem_allocate(fd, 0, PAGE_SIZE + 1));
	EXPECT_EQ(EINVAL, __gmem_allocate(fd, TEST_SIZE, PAGE_SIZE));
	expect_no_fallocate(fd);
}

TEST_F(pending, source_goes_on)
{
	struct gmem_vm *src = &self->src;

	gmem_guest_fill(src, 0, TEST_SIZE, 0x51);
	gmem_punch(src->fd, 0, HALF);
	gmem_allocate(src->fd, 0, HALF);
	gmem_guest_expect(src, 0, HALF, 0);
	gmem_guest_expect(src, HALF, HALF, 0x51);
	gmem_expect_no_access(&self->dst, 0);
}

TEST_F(pending, shared_half_is_not_affected)
{
	struct gmem_vm *dst = &self->dst;

	vm_mem_set_shared(dst->vm, GMEM_GPA, HALF);
	gmem_guest_fill(dst, 0, HALF, 0x5a);
	gmem_guest_expect(dst, 0, HALF, 0x5a);
	gmem_expect_no_access(dst, HALF);
	gmem_guest_expect(&self->src, 0, HALF, 0x50);
}

TEST_F(pending, slot_keeps_the_view_pending)
{
	struct kvm_vm *third = create_vm();

	gmem_vm_close_fd(&self->dst);
	gmem_expect_no_access(&self->dst, 0);
	EXPECT_LINK_ERRNO(EBUSY, third, self->src.fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, self->dst.vm, self->src.fd, 0);
	gmem_delete_slot(self->dst.vm, GMEM_SLOT);
	close(gmem_link(third, self->src.fd, 0));
	kvm_vm_free(third);
}

TEST_F(pending, death_makes_room)
{
	struct gmem_vm *src = &self->src;
	struct kvm_vm *vm;
	int dead, link;

	dead = dup(self->dst.fd);
	gmem_vm_free(&self->dst);

	/* The descriptor has no rights, not even to be linked from. */
	expect_no_fallocate(dead);
	vm = create_vm();
	EXPECT_LINK_ERRNO(EINVAL, vm, dead, 0);
	EXPECT_LINK_ERRNO(EINVAL, vm, dead, SHARE);
	close(gmem_link(vm, src->fd, 0));
	link = gmem_link(vm, src->fd, SHARE);
	gmem_guest_expect(src, 0, HALF, 0x50);
	close(link);
	kvm_vm_free(vm);

	create_heir(&self->dst, src->fd);
	gmem_expect_no_access(&self->dst, 0);
	expect_no_fallocate(dead);
	close(dead);
}

TEST_F(pending, dead_one_is_active_when_the_owner_is_gone)
{
	struct gmem_vm *src = &self->src, *dst = &self->dst;
	int dead = dup(dst->fd);

	gmem_vm_free(dst);
	gmem_vm_free(src);
	gmem_allocate(dead, 0, TEST_SIZE);

	create_heir(dst, dead);
	gmem_guest_expect(dst, 0, HALF, 0x50);
	gmem_punch(dead, 0, HALF);
	gmem_guest_expect(dst, 0, TEST_SIZE, 0);
	close(dead);
}

TEST_F(pending, dead_one_gets_nothing_while_there_is_an_heir)
{
	struct gmem_vm *src = &self->src, *dst = &self->dst;
	int dead = dup(dst->fd);

	gmem_vm_free(dst);
	create_heir(dst, src->fd);
	gmem_vm_free(src);
	EXPECT_EQ(EPERM, __gmem_punch(dead, 0, TEST_SIZE));
	EXPECT_EQ(EPERM, __gmem_allocate(dead, 0, TEST_SIZE));
	gmem_guest_expect(dst, 0, HALF, 0x50);

	/* Then it is the next in line. */
	gmem_vm_free(dst);
	gmem_punch(dead, 0, TEST_SIZE);
	close(dead);
}

TEST_F(pending, waits_for_the_last_active_view)
{
	struct gmem_vm *src = &self->src, *dst = &self->dst;
	struct gmem_vm third;

	gmem_vm_free(dst);
	gmem_vm_create_linked(&third, TEST_SIZE, src->fd, SHARE);
	create_heir(dst, third.fd);

	gmem_expect_no_access(dst, 0);
	gmem_vm_free(src);
	gmem_expect_no_access(dst, 0);
	gmem_vm_free(&third);
	gmem_guest_expect(dst, 0, HALF, 0x50);
}

TEST_F(pending, bound_after_the_activation)
{
	struct gmem_vm *src = &self->src, *dst = &self->dst;

	gmem_delete_slot(dst->vm, GMEM_SLOT);
	gmem_vm_free(src);
	EXPECT_EQ(EFAULT, __gmem_guest_read(dst, 0));
	gmem_vm_bind(dst);
	gmem_guest_expect(dst, 0, HALF, 0x50);
}

/*
 * Activation: every way in which the last active view can go
 */

FIXTURE(activation)
{
	struct gmem_usage usage;
	struct gmem_vm src, dst;
};

FIXTURE_VARIANT(activation)
{
	/* End @src's view; nothing but the end of that may activate @dst's. */
	void (*end)(struct gmem_vm *src, struct gmem_vm *dst);
};

static void close_then_delete(struct gmem_vm *src, struct gmem_vm *dst)
{
	gmem_vm_close_fd(src);
	gmem_expect_no_access(dst, 0);
	gmem_guest_expect(src, 0, HALF, 0x50);
	gmem_delete_slot(src->vm, GMEM_SLOT);
}

static void delete_then_close(struct gmem_vm *src, struct gmem_vm *dst)
{
	gmem_delete_slot(src->vm, GMEM_SLOT);
	gmem_expect_no_access(dst, 0);
	gmem_vm_close_fd(src);
}

static void close_then_destroy(struct gmem_vm *src, struct gmem_vm *dst)
{
	gmem_vm_close_fd(src);
	gmem_expect_no_access(dst, 0);
	gmem_vm_free(src);
}

static void destroy_first(struct gmem_vm *src, struct gmem_vm *dst)
{
	int fd = dup(src->fd);

	/* The VM lives as long as its vCPU. */
	close(src->vm->fd);
	gmem_expect_no_access(dst, 0);
	munmap(src->vcpu->run, 3 * PAGE_SIZE);
	close(src->vcpu->fd);
	close(src->vm->kvm_fd);

	/* The descriptor of the dead VM has its rights still. */
	gmem_allocate(fd, 0, PAGE_SIZE);
	close(fd);
	gmem_vm_close_fd(src);
	src->vm = NULL;
}

FIXTURE_VARIANT_ADD(activation, descriptor_then_slot)
{
	.end = close_then_delete,
};

FIXTURE_VARIANT_ADD(activation, slot_then_descriptor)
{
	.end = delete_then_close,
};

FIXTURE_VARIANT_ADD(activation, descriptor_then_vm)
{
	.end = close_then_destroy,
};

FIXTURE_VARIANT_ADD(activation, vm_then_descriptor)
{
	.end = destroy_first,
};

FIXTURE_SETUP(activation)
{
	gmem_usage_get(&self->usage);
	create_pair(&self->src, &self->dst);
}

FIXTURE_TEARDOWN(activation)
{
	gmem_vm_free(&self->src);
	gmem_vm_free(&self->dst);
	gmem_usage_check(&self->usage);
}

TEST_F(activation, new_owner_has_contents_and_rights)
{
	struct gmem_vm *dst = &self->dst;
	struct kvm_vm *third;
	long base;
	int link;

	variant->end(&self->src, dst);

	gmem_guest_expect(dst, 0, HALF, 0x50);
	EXPECT_EQ(0, __gmem_pre_fault(dst->vcpu, GMEM_GPA, TEST_SIZE, 0, NULL));
	gmem_guest_expect(dst, HALF, HALF, 0);
	gmem_guest_fill(dst, 0, TEST_SIZE, 0xd0);
	gmem_guest_expect(dst, 0, TEST_SIZE, 0xd0);

	base = gmem_file_pages();
	gmem_punch(dst->fd, 0, HALF);
	EXPECT_TRUE(gmem_pages_are(base, -NR_PAGES / 2));
	gmem_allocate(dst->fd, 0, HALF);
	EXPECT_TRUE(gmem_pages_are(base, 0));
	gmem_guest_expect(dst, 0, HALF, 0);
	gmem_guest_expect(dst, HALF, HALF, 0xd0);

	third = create_vm();
	link = gmem_link(third, dst->fd, 0);
	expect_no_fallocate(link);
	close(link);
	kvm_vm_free(third);
}

TEST_F(activation, closed_descriptor_is_no_obstacle)
{
	gmem_vm_close_fd(&self->dst);
	variant->end(&self->src, &self->dst);
	gmem_guest_expect(&self->dst, 0, HALF, 0x50);
	gmem_guest_fill(&self->dst, 0, TEST_SIZE, 0xd1);
}

/*
 * Memory that goes on from VM to VM
 */

FIXTURE(heir)
{
	struct gmem_usage usage;
};

FIXTURE_SETUP(heir)
{
	gmem_usage_get(&self->usage);
}

FIXTURE_TEARDOWN(heir)
{
	gmem_usage_check(&self->usage);
}

TEST_F(heir, of_a_dead_vm_starts_at_once)
{
	struct gmem_vm a, b, c;
	int fd;

	gmem_vm_create(&a, TEST_SIZE);
	gmem_guest_fill(&a, 0, TEST_SIZE, 0xa);
	fd = dup(a.fd);
	gmem_vm_free(&a);

	create_heir(&b, fd);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0xa);

	/* Whoever comes later is pending, whichever descriptor was linked. */
	create_heir(&c, fd);
	gmem_expect_no_access(&c, 0);
	gmem_guest_fill(&b, 0, HALF, 0xb);
	gmem_vm_free(&b);
	gmem_guest_expect(&c, 0, HALF, 0xb);
	gmem_guest_expect(&c, HALF, HALF, 0xa);
	gmem_vm_free(&c);
	close(fd);
}

TEST_F(heir, finds_zeroes_where_the_supervisor_punched)
{
	struct gmem_vm a, b;
	int fd;

	gmem_vm_create(&a, TEST_SIZE);
	gmem_guest_fill(&a, 0, TEST_SIZE, 0xa);
	fd = dup(a.fd);
	gmem_vm_free(&a);

	EXPECT_TRUE(gmem_pages_are(self->usage.pages, NR_PAGES));
	gmem_punch(fd, 0, TEST_SIZE);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 0));
	create_heir(&b, fd);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0);
	gmem_vm_free(&b);
	close(fd);
}

#define NR_HOPS 10

TEST_F(heir, of_ten_generations)
{
	const uint64_t part = TEST_SIZE / 16;
	struct gmem_vm vm[NR_HOPS];
	int i, j;

	gmem_vm_create(&vm[0], TEST_SIZE);
	gmem_guest_fill(&vm[0], 0, part, 100);
	for (i = 1; i < NR_HOPS; i++) {
		create_heir(&vm[i], vm[i - 1].fd);
		gmem_expect_no_access(&vm[i], 0);
		gmem_vm_free(&vm[i - 1]);
		for (j = 0; j < i; j++)
			gmem_guest_expect(&vm[i], j * part, part, 100 + j);
		gmem_guest_fill(&vm[i], i * part, part, 100 + i);
	}
	gmem_vm_free(&vm[NR_HOPS - 1]);
}

/* Links of links, their VMs dead: one inode, one memory */
TEST_F(heir, of_a_chain_of_dead_links)
{
	int fd[NR_HOPS];
	struct gmem_vm g;
	int i;

	gmem_vm_create(&g, TEST_SIZE);
	gmem_guest_fill(&g, 0, TEST_SIZE, 0xa);
	fd[0] = dup(g.fd);
	gmem_vm_free(&g);
	for (i = 1; i < NR_HOPS; i++)
		fd[i] = link_into_dead_vm(fd[i - 1], 0);
	for (i = 0; i < NR_HOPS; i++) {
		if (i != NR_HOPS / 2)
			close(fd[i]);
	}
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, NR_PAGES));

	create_heir(&g, fd[NR_HOPS / 2]);
	close(fd[NR_HOPS / 2]);
	gmem_guest_expect(&g, 0, TEST_SIZE, 0xa);
	gmem_vm_free(&g);
}

TEST_F(heir, of_the_view_that_a_move_revoked_is_none)
{
	struct gmem_vm src, dst;
	struct kvm_vm *vm;
	int revoked, link;

	gmem_vm_create(&src, TEST_SIZE);
	gmem_guest_fill(&src, 0, HALF, 0x50);
	gmem_vm_create_linked(&dst, TEST_SIZE, src.fd, 0);
	gmem_move(dst.vm, src.vm);
	vm = create_vm();
	EXPECT_LINK_ERRNO(EIO, src.vm, dst.fd, 0);
	EXPECT_LINK_ERRNO(EIO, src.vm, dst.fd, 1);

	EXPECT_LINK_ERRNO(EINVAL, vm, src.fd, 0);
	EXPECT_LINK_ERRNO(EINVAL, vm, src.fd, SHARE);
	expect_no_fallocate(src.fd);
	revoked = dup(src.fd);
	gmem_vm_free(&src);
	EXPECT_LINK_ERRNO(EINVAL, vm, revoked, 0);
	expect_no_fallocate(revoked);

	/* The new owner's can be linked, and stays when the owner goes. */
	link = gmem_link(vm, dst.fd, 0);
	expect_no_fallocate(link);
	gmem_guest_expect(&dst, 0, HALF, 0x50);
	gmem_vm_free(&dst);
	gmem_allocate(link, 0, PAGE_SIZE);
	EXPECT_LINK_ERRNO(EINVAL, vm, revoked, 0);
	expect_no_fallocate(revoked);
	close(link);
	kvm_vm_free(vm);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, NR_PAGES / 2));
	close(revoked);
}

/*
 * The source in a process of its own
 */

static void guest_count(void)
{
	uint64_t *count = (void *)GMEM_GPA + HALF;

	for (;;)
		WRITE_ONCE(*count, *count + 1);
}

/* Fill half of the memory, send its descriptor, and count until killed. */
static void run_source(int sock)
{
	struct gmem_vm g;

	gmem_vm_create(&g, TEST_SIZE);
	gmem_guest_fill(&g, 0, HALF, 0x50);
	gmem_send_fd(sock, g.fd);
	vcpu_arch_set_entry_point(g.vcpu, guest_count);
	_vcpu_run(g.vcpu);
	_exit(1);
}

static pid_t fork_source(int *fd)
{
	int sock[2];
	pid_t pid;

	TEST_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, sock), "socketpair()");
	pid = gmem_fork();
	if (!pid)
		run_source(sock[1]);
	*fd = gmem_receive_fd(sock[0]);
	close(sock[0]);
	close(sock[1]);
	return pid;
}

static void kill_source(pid_t pid)
{
	TEST_ASSERT(!kill(pid, SIGKILL), "kill() failed");
	TEST_ASSERT(waitpid(pid, NULL, 0) == pid, "waitpid() failed");
}

static void expect_count(struct gmem_vm *g)
{
	gmem_guest_expect(g, 0, HALF, 0x50);
	TEST_ASSERT_EQ(__gmem_guest_skip(g, HALF, 8, 0), 0);
	TEST_ASSERT(gmem_guest_word, "the source has not counted");
}

TEST_F(heir, of_another_process)
{
	struct gmem_vm g;
	pid_t pid;
	int fd;

	pid = fork_source(&fd);
	create_heir(&g, fd);
	close(fd);
	gmem_expect_no_access(&g, 0);
	expect_no_fallocate(g.fd);
	usleep(300000);
	kill_source(pid);
	expect_count(&g);
	gmem_guest_fill(&g, 0, TEST_SIZE, 1);
	gmem_vm_free(&g);
}

/* The supervisor has nothing but the memory's descriptor. */
TEST_F(heir, of_a_crashed_process)
{
	struct gmem_vm g;
	pid_t pid;
	int fd;

	pid = fork_source(&fd);
	usleep(300000);
	kill_source(pid);
	EXPECT_EQ(self->usage.vms, gmem_count_vms());
	create_heir(&g, fd);
	close(fd);
	expect_count(&g);
	gmem_guest_fill(&g, 0, TEST_SIZE, 1);
	gmem_vm_free(&g);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	return test_harness_run(argc, argv);
}
