/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the guest_memfd tests: a software-protected VM whose test memory
 * is a guest_memfd, guest operations on that memory, and the accounting that
 * every test returns to its baseline.
 *
 * As in the rest of the KVM selftests a leading double underscore means "may
 * fail, returns 0 or the errno", and its absence "asserts success".
 */
#ifndef SELFTEST_KVM_GMEM_UTIL_H
#define SELFTEST_KVM_GMEM_UTIL_H

#include <dirent.h>
#include <linux/falloc.h>
#include <linux/sizes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#include "kvm_util.h"
#include "processor.h"
#include "ucall_common.h"
#include "kselftest_harness.h"

/*
 * In seconds.  Whoever runs a program limits all of it (vm/tests.cfg); a limit
 * per test that suits both a fast machine and an emulated one with a debug
 * kernel does not exist, so this one only ends what would never end.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 3600

/* Names that 6.12's headers do not have yet. */
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS 244
#endif
#ifndef GUEST_MEMFD_MAGIC
#define GUEST_MEMFD_MAGIC 0x474d454d
#endif

#define GMEM_SLOT	10
#define GMEM_GPA	BIT_ULL(32)
#define GMEM_PUNCH	(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)

/* Expect that @expr returns -1 and sets errno to @err. */
#define EXPECT_ERRNO(err, expr)						\
do {									\
	long __ret;							\
	int __err;							\
									\
	errno = 0;							\
	__ret = (long)(expr);						\
	__err = errno;							\
	EXPECT_EQ(-1, __ret)						\
		TH_LOG("%s should fail with %s", #expr, #err);		\
	EXPECT_EQ(err, __err)						\
		TH_LOG("%s should fail with %s", #expr, #err);		\
} while (0)

static inline uint64_t gmem_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static inline uint64_t gmem_now_ms(void)
{
	return gmem_now_us() / 1000;
}

/*
 * For how long each race goes on.  GMEM_RACE_MS in the environment, which may be
 * a word of the kernel's command line, lets races last longer.
 */
static inline uint64_t gmem_race_ms(void)
{
	static uint64_t ms;
	const char *env;

	if (!ms) {
		env = getenv("GMEM_RACE_MS");
		ms = env ? strtoull(env, NULL, 0) : 0;
		ms = ms ?: 1200;
	}
	return ms;
}

/*
 * Does a race that began at @start go on after @rounds rounds?  A slow machine
 * gets up to three times as long for @min of them.
 */
static inline bool gmem_race_goes_on(uint64_t start, int rounds, int min)
{
	uint64_t ms = gmem_now_ms() - start;

	return ms < gmem_race_ms() || (rounds < min && ms < 3 * gmem_race_ms());
}

/* Finer than usleep(); no time at all if @us is negative. */
static inline void gmem_spin_us(long us)
{
	uint64_t start = gmem_now_us();

	while (us > (long)(gmem_now_us() - start))
		cpu_relax();
}

/*
 * Skip the program where there are no software-protected VMs.
 *
 * Keep a VM for as long as it runs: making the first VM and destroying the last
 * one patches the scheduler's code, and an emulated machine with several CPUs
 * may run a stale breakpoint of the patching.
 */
static inline void gmem_require_sw_protected(void)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_VM_TYPES) &
		     BIT(KVM_X86_SW_PROTECTED_VM));
	vm_create_barebones();
}

/*
 * Accounting: what must be back at its baseline when a test ends.
 */

struct gmem_usage {
	long pages;	/* of page cache, which counts guest_memfd's */
	long unevictable; /* pages, which also shows those of no file */
	int vms;	/* alive, from KVM's debugfs */
	long refcnt;	/* of KVM's modules */
};

static inline long gmem_read_long(const char *path, const char *key)
{
	char line[256];
	long val = -1;
	FILE *f;

	f = fopen(path, "r");
	TEST_ASSERT(f, "cannot open %s", path);
	while (val < 0 && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, strlen(key)))
			sscanf(line + strlen(key), "%ld", &val);
	}
	fclose(f);
	TEST_ASSERT(val >= 0, "no value '%s' in %s", key, path);
	return val;
}

static inline int __gmem_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	int err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		err = errno;
	close(fd);
	return err;
}

static inline void gmem_write_file(const char *path, const char *text)
{
	int err = __gmem_write_file(path, text);

	TEST_ASSERT(!err, "cannot write '%s' to %s: %s", text, path,
		    strerror(err));
}

/* Is @option on the kernel's command line? */
static inline bool gmem_booted_with(const char *option)
{
	char cmdline[4096] = {};
	int fd = open("/proc/cmdline", O_RDONLY);

	TEST_ASSERT(fd >= 0 && read(fd, cmdline, sizeof(cmdline) - 1) > 0,
		    "cannot read /proc/cmdline");
	close(fd);
	return strstr(cmdline, option);
}

#define GMEM_HUGE_FOLIOS "/sys/module/kvm/parameters/gmem_huge_folios"

/* May new memory have huge folios? */
static inline bool gmem_may_be_huge(void)
{
	int fd = open(GMEM_HUGE_FOLIOS, O_RDONLY);
	char c = 'N';

	if (fd < 0)
		return false;
	TEST_ASSERT(read(fd, &c, 1) == 1, "cannot read a parameter");
	close(fd);
	return c == 'Y';
}

/* Pages in the page cache, with the per-CPU counters folded in. */
static inline long gmem_file_pages(void)
{
	gmem_write_file("/proc/sys/vm/stat_refresh", "1");
	return gmem_read_long("/proc/vmstat", "nr_file_pages");
}

/* Huge folios of all files of the machine */
static inline long gmem_nr_huge(void)
{
	gmem_write_file("/proc/sys/vm/stat_refresh", "1");
	return gmem_read_long("/proc/vmstat", "nr_file_hugepages");
}

/* Is the page cache @pages larger than at @base?  A few pages are noise. */
static inline bool gmem_pages_are(long base, long pages)
{
	return labs(gmem_file_pages() - base - pages) <= 16;
}

static inline int gmem_count_vms(void)
{
	const char *path = "/sys/kernel/debug/kvm";
	struct dirent *ent;
	int nr = 0;
	DIR *dir;

	dir = opendir(path);
	TEST_ASSERT(dir, "cannot open %s, mount debugfs", path);
	while ((ent = readdir(dir)))
		nr += ent->d_name[0] >= '0' && ent->d_name[0] <= '9';
	closedir(dir);
	return nr;
}

/* Files and VMs hold the vendor's module, which holds kvm. */
static inline long gmem_count_module_refs(void)
{
	const char * const paths[] = {
		"/sys/module/kvm/refcnt",
		"/sys/module/kvm_amd/refcnt",
		"/sys/module/kvm_intel/refcnt",
	};
	long nr = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(paths); i++) {
		if (!access(paths[i], R_OK))
			nr += gmem_read_long(paths[i], "");
	}
	return nr;
}

static inline void gmem_usage_get(struct gmem_usage *usage)
{
	usage->pages = gmem_file_pages();
	usage->unevictable = gmem_read_long("/proc/vmstat", "nr_unevictable");
	usage->vms = gmem_count_vms();
	usage->refcnt = gmem_count_module_refs();
}

/* References may be dropped by a work item or an RCU callback: poll. */
static inline bool gmem_usage_is_back(const struct gmem_usage *base,
				      struct gmem_usage *now, int ms)
{
	uint64_t end = gmem_now_ms() + ms;
	bool drained = false;

	for (;;) {
		gmem_usage_get(now);
		if (now->pages <= base->pages + 16 &&
		    now->unevictable <= base->unevictable &&
		    now->vms == base->vms && now->refcnt == base->refcnt)
			return true;
		if (gmem_now_ms() >= end)
			return false;
		/* CPUs keep a few pages that were locked or are new. */
		if (!drained)
			__gmem_write_file("/proc/sys/vm/drop_caches", "1");
		drained = true;
		usleep(20000);
	}
}

static inline void gmem_usage_check(const struct gmem_usage *base)
{
	struct gmem_usage now;

	if (!gmem_usage_is_back(base, &now, 5000))
		TEST_FAIL("left behind: %ld pages, %ld unevictable, %d VMs, %ld module references",
			  now.pages - base->pages,
			  now.unevictable - base->unevictable,
			  now.vms - base->vms, now.refcnt - base->refcnt);
}

/*
 * Processes and threads
 */

/* A child that dies with its parent. */
static inline pid_t gmem_fork(void)
{
	pid_t pid = fork();

	TEST_ASSERT(pid >= 0, "fork() failed");
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static inline void gmem_wait_ok(pid_t pid)
{
	int status;

	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	TEST_ASSERT(WIFEXITED(status) && !WEXITSTATUS(status),
		    "child failed with wait status 0x%x", status);
}

/* A child that would go on for ever: if it has ended, something went wrong. */
static inline void gmem_kill(pid_t pid)
{
	int status;

	TEST_ASSERT(!kill(pid, SIGKILL), "kill() failed");
	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	TEST_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		    "the child had ended, with wait status 0x%x", status);
}

static inline pthread_t gmem_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, fn, arg);

	TEST_ASSERT(!r, "pthread_create() failed: %s", strerror(r));
	return thread;
}

static inline void gmem_send_fd(int sock, int fd)
{
	char c = 0, buf[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { .iov_base = &c, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = buf,
		.msg_controllen = sizeof(buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	TEST_ASSERT(sendmsg(sock, &msg, 0) == 1, "sendmsg() failed");
}

static inline int gmem_receive_fd(int sock)
{
	char c, buf[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { .iov_base = &c, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = buf,
		.msg_controllen = sizeof(buf),
	};
	int fd;

	TEST_ASSERT(recvmsg(sock, &msg, 0) == 1, "recvmsg() failed");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

static inline void *gmem_mmap(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, "mmap() of 0x%lx bytes failed", size);
	return mem;
}

/*
 * Leave a pattern in most of the free memory, or at least in that which was
 * freed last and will be allocated first.
 */
static inline void gmem_pollute_free_memory(void)
{
	size_t size;
	pid_t pid;

	size = gmem_read_long("/proc/meminfo", "MemFree:") * 1024;
	size = min(size / 10 * 8, (size_t)SZ_256M) & ~(PAGE_SIZE - 1);
	pid = gmem_fork();
	if (!pid) {
		void *mem = gmem_mmap(size);

		/* Most of it in pieces that take the debug kernel less time. */
		if (size > SZ_32M)
			madvise(mem, size - SZ_32M, MADV_HUGEPAGE);
		memset(mem, 0x5a, size);
		_exit(0);
	}
	gmem_wait_ok(pid);
}

/*
 * A VM with one vCPU and @size bytes of test memory at GMEM_GPA, mapped at the
 * same guest virtual address: guest_memfd while private, @shared while shared.
 */

struct gmem_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_regs regs;	/* where every guest operation starts */
	size_t size;
	void *shared;
	int fd;			/* -1 once the test has closed it */
};

static inline int __gmem_set_attributes(struct kvm_vm *vm, uint64_t gpa,
					uint64_t size, uint64_t attributes,
					uint64_t flags)
{
	struct kvm_memory_attributes attr = {
		.address = gpa,
		.size = size,
		.attributes = attributes,
		.flags = flags,
	};

	return __vm_ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &attr) ? errno : 0;
}

/* Set, or with @size 0 delete, memory slot @slot. */
static inline int __gmem_set_slot(struct kvm_vm *vm, uint32_t slot,
				  uint32_t flags, uint64_t gpa, uint64_t size,
				  void *hva, int fd, uint64_t offset)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
		.guest_memfd = fd,
		.guest_memfd_offset = offset,
	};

	return __vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region) ? errno : 0;
}

static inline void gmem_set_slot(struct kvm_vm *vm, uint32_t slot,
				 uint32_t flags, uint64_t gpa, uint64_t size,
				 void *hva, int fd, uint64_t offset)
{
	int err = __gmem_set_slot(vm, slot, flags, gpa, size, hva, fd, offset);

	TEST_ASSERT(!err, "KVM_SET_USER_MEMORY_REGION2: %s", strerror(err));
}

static inline void gmem_delete_slot(struct kvm_vm *vm, uint32_t slot)
{
	gmem_set_slot(vm, slot, 0, 0, 0, NULL, -1, 0);
}

static inline void gmem_vm_bind(struct gmem_vm *g)
{
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, g->size,
		      g->shared, g->fd, 0);
}

/* A VM of some type, without the test memory and what the host knows of it. */
static inline void gmem_vm_create_type(struct gmem_vm *g, size_t size,
				       uint32_t type)
{
	const struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = type,
	};

	g->size = size;
	g->vm = __vm_create_shape_with_one_vcpu(shape, &g->vcpu,
						size / PAGE_SIZE, NULL);
	vcpu_regs_get(g->vcpu, &g->regs);
	virt_map(g->vm, GMEM_GPA, GMEM_GPA, size / PAGE_SIZE);
	g->shared = NULL;
	g->fd = -1;
}

/* All but the guest_memfd and its slot: the test memory is not there yet. */
static inline void gmem_vm_create_empty(struct gmem_vm *g, size_t size)
{
	gmem_vm_create_type(g, size, KVM_X86_SW_PROTECTED_VM);
	g->shared = gmem_mmap(size);
}

/* All of the memory starts private and bound to a new guest_memfd. */
static inline void gmem_vm_create(struct gmem_vm *g, size_t size)
{
	gmem_vm_create_empty(g, size);
	g->fd = vm_create_guest_memfd(g->vm, size, 0);
	gmem_vm_bind(g);
	vm_mem_set_private(g->vm, GMEM_GPA, size);
}

static inline void gmem_vm_close_fd(struct gmem_vm *g)
{
	TEST_ASSERT(!close(g->fd), "close() of a guest_memfd failed");
	g->fd = -1;
}

/* Does every ioctl fail?  They also do on the VM of another process. */
static inline bool gmem_vm_is_dead(struct kvm_vm *vm)
{
	if (__vm_ioctl(vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_USER_MEMORY) >= 0)
		return false;
	TEST_ASSERT_EQ(errno, EIO);
	return true;
}

/* As kvm_vm_free(), which fails to delete the slots of a dead VM. */
static inline void gmem_free_dead_vm(struct kvm_vm *vm)
{
	struct userspace_mem_region *region;
	int i;

	if (vm->stats_fd) {
		free(vm->stats_desc);
		close(vm->stats_fd);
	}
	kvm_vm_release(vm);
	hash_for_each(vm->regions.slot_hash, i, region, slot_node)
		munmap(region->mmap_start, region->mmap_size);
	free(vm);
}

/* A second call does nothing. */
static inline void gmem_vm_free(struct gmem_vm *g)
{
	if (!g->vm)
		return;
	if (g->fd >= 0)
		gmem_vm_close_fd(g);
	if (gmem_vm_is_dead(g->vm))
		gmem_free_dead_vm(g->vm);
	else
		kvm_vm_free(g->vm);
	g->vm = NULL;
	if (g->shared)
		munmap(g->shared, g->size);
}

static inline int __gmem_punch(int fd, off_t offset, off_t len)
{
	return fallocate(fd, GMEM_PUNCH, offset, len) ? errno : 0;
}

static inline void gmem_punch(int fd, off_t offset, off_t len)
{
	int err = __gmem_punch(fd, offset, len);

	TEST_ASSERT(!err, "PUNCH_HOLE at 0x%lx, 0x%lx bytes: %s", offset, len,
		    strerror(err));
}

static inline int __gmem_allocate(int fd, off_t offset, off_t len)
{
	return fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, len) ? errno : 0;
}

static inline void gmem_allocate(int fd, off_t offset, off_t len)
{
	int err = __gmem_allocate(fd, offset, len);

	TEST_ASSERT(!err, "allocate at 0x%lx, 0x%lx bytes: %s", offset, len,
		    strerror(err));
}

/*
 * Guest operations.  Each starts the vCPU afresh, so one that ended in a memory
 * fault needs no clean-up.  A guest function ends with GUEST_UCALL_NONE() and
 * leaves its results in globals: other ucalls would never be freed.
 */

/* Let a guest function run to its end, or fail as KVM_RUN does. */
static inline int __gmem_guest_end(struct gmem_vm *g)
{
	struct ucall uc;

	if (_vcpu_run(g->vcpu))
		return errno;

	if (get_ucall(g->vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_NONE);
	TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_IO);
	vcpu_run_complete_io(g->vcpu);
	return 0;
}

/* Have the next run begin guest function @entry, with up to four arguments. */
static inline void gmem_guest_start(struct gmem_vm *g, void *entry,
				    uint64_t arg0, uint64_t arg1, uint64_t arg2,
				    uint64_t arg3)
{
	struct kvm_run *run = g->vcpu->run;

	vcpu_regs_set(g->vcpu, &g->regs);
	vcpu_arch_set_entry_point(g->vcpu, entry);
	vcpu_args_set(g->vcpu, 4, arg0, arg1, arg2, arg3);

	/* What KVM does not write must not look like an answer. */
	run->exit_reason = -1;
	memset(&run->memory_fault, 0xff, sizeof(run->memory_fault));
}

/* Start guest function @entry, and let it end. */
static inline int __gmem_guest_run(struct gmem_vm *g, void *entry,
				   uint64_t arg0, uint64_t arg1, uint64_t arg2,
				   uint64_t arg3)
{
	gmem_guest_start(g, entry, arg0, arg1, arg2, arg3);
	return __gmem_guest_end(g);
}

static uint64_t gmem_guest_word;	/* the word that ended a skip */
static uint64_t gmem_guest_skipped;	/* bytes before it */

static inline void gmem_guest_do_fill(uint64_t gpa, uint64_t size, uint64_t val)
{
	uint64_t *p = (void *)gpa, *end = (void *)(gpa + size);

	for (; p < end; p++)
		WRITE_ONCE(*p, val);
	GUEST_UCALL_NONE();
}

static inline void gmem_guest_do_skip(uint64_t gpa, uint64_t size, uint64_t val)
{
	uint64_t *p = (void *)gpa, *end = (void *)(gpa + size);
	uint64_t word = val;

	for (; p < end; p++) {
		word = READ_ONCE(*p);
		if (word != val)
			break;
	}
	gmem_guest_word = word;
	gmem_guest_skipped = (uint64_t)p - gpa;
	GUEST_UCALL_NONE();
}

/* Have the guest write @val to every word of a range. */
static inline int __gmem_guest_fill(struct gmem_vm *g, uint64_t offset,
				    uint64_t size, uint64_t val)
{
	return __gmem_guest_run(g, gmem_guest_do_fill, GMEM_GPA + offset, size,
				val, 0);
}

static inline void gmem_guest_fill(struct gmem_vm *g, uint64_t offset,
				   uint64_t size, uint64_t val)
{
	int err = __gmem_guest_fill(g, offset, size, val);

	TEST_ASSERT(!err, "guest write at offset 0x%lx: %s", offset,
		    strerror(err));
}

/* Have the guest skip the words that hold @val. */
static inline int __gmem_guest_skip(struct gmem_vm *g, uint64_t offset,
				    uint64_t size, uint64_t val)
{
	int err = __gmem_guest_run(g, gmem_guest_do_skip, GMEM_GPA + offset,
				   size, val, 0);

	sync_global_from_guest(g->vm, gmem_guest_word);
	sync_global_from_guest(g->vm, gmem_guest_skipped);
	return err;
}

/* The guest must see @val in every word of the range. */
static inline void gmem_guest_expect(struct gmem_vm *g, uint64_t offset,
				     uint64_t size, uint64_t val)
{
	int err = __gmem_guest_skip(g, offset, size, val);

	TEST_ASSERT(!err, "guest read at offset 0x%lx: %s", offset,
		    strerror(err));
	TEST_ASSERT(gmem_guest_skipped == size,
		    "guest sees 0x%lx instead of 0x%lx at offset 0x%lx",
		    gmem_guest_word, val, offset + gmem_guest_skipped);
}

/* Have the guest touch a page; fails as KVM_RUN does. */
static inline int __gmem_guest_read(struct gmem_vm *g, uint64_t offset)
{
	return __gmem_guest_skip(g, offset, sizeof(uint64_t), 0);
}

/* The last exit must be a private memory fault on the page at @offset. */
static inline void gmem_expect_memory_fault(struct gmem_vm *g, uint64_t offset)
{
	struct kvm_run *run = g->vcpu->run;

	TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_MEMORY_FAULT);
	TEST_ASSERT_EQ(run->memory_fault.flags, KVM_MEMORY_EXIT_FLAG_PRIVATE);
	TEST_ASSERT_EQ(run->memory_fault.gpa,
		       GMEM_GPA + align_down(offset, PAGE_SIZE));
	TEST_ASSERT_EQ(run->memory_fault.size, PAGE_SIZE);
}

/*
 * Populate a range.  Succeeds if a part of it is done, and tells in @left, which
 * may be NULL, how many bytes are not.
 */
static inline int __gmem_pre_fault(struct kvm_vcpu *vcpu, uint64_t gpa,
				   uint64_t size, uint64_t flags,
				   uint64_t *left)
{
	struct kvm_pre_fault_memory range = {
		.gpa = gpa,
		.size = size,
		.flags = flags,
	};
	int r = __vcpu_ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &range);

	if (left)
		*left = range.size;
	return r ? errno : 0;
}

/* Nested page tables that map the first 512 GiB to itself in 1 GiB pages */
static inline uint64_t gmem_create_identity_map(struct kvm_vm *vm)
{
	const uint64_t flags = 0x7;	/* present, writable, user */
	const uint64_t huge = BIT_ULL(7);
	vm_vaddr_t pml4 = vm_vaddr_alloc_page(vm);
	vm_vaddr_t pdpt = vm_vaddr_alloc_page(vm);
	uint64_t *entry = addr_gva2hva(vm, pdpt);
	uint64_t i;

	memset(addr_gva2hva(vm, pml4), 0, PAGE_SIZE);
	*(uint64_t *)addr_gva2hva(vm, pml4) = addr_gva2gpa(vm, pdpt) | flags;
	for (i = 0; i < PAGE_SIZE / sizeof(*entry); i++)
		entry[i] = i * SZ_1G | huge | flags;

	return addr_gva2gpa(vm, pml4);
}

/*
 * In the guest: write to each page in turn, and check that it holds what was
 * written last, which is in @last, or 0 where memory was given back.  Values only
 * grow, and tell their page.
 */
static inline void gmem_guest_write_and_check(uint64_t *last, uint64_t nr_pages,
					      uint64_t *nr_holes, bool *stop)
{
	uint64_t *p, i, val, pass;

	for (pass = 1; !READ_ONCE(*stop); pass++) {
		for (i = 0; i < nr_pages; i++) {
			p = (void *)(GMEM_GPA + i * PAGE_SIZE);
			val = READ_ONCE(*p);
			__GUEST_ASSERT(!val || val == last[i],
				       "page %lu holds 0x%lx, not 0 or 0x%lx",
				       i, val, last[i]);
			*nr_holes += last[i] && !val;
			last[i] = pass * nr_pages + i;
			WRITE_ONCE(*p, last[i]);
		}
	}
}

#endif /* SELFTEST_KVM_GMEM_UTIL_H */
