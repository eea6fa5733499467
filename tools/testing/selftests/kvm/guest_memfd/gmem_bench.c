// SPDX-License-Identifier: GPL-2.0
/*
 * What operations on a guest's memory cost: of a guest_memfd, and, for those that
 * other memory has as well, of that.  Not a test: vm/bench.sh runs it on a CPU
 * whose clock counts instructions, and makes a table of what it prints.
 *
 *   time BACKING OPERATION MIB ELAPSED BUSY PAGES
 *   memory BACKING OPERATION MIB SLAB PAGETABLES SECPAGETABLES
 *   longest BACKING OPERATION MIB NANOSECONDS
 *
 * ELAPSED and BUSY, which leaves out that the CPU was idle, are nanoseconds;
 * memory is by how many KiB it grew.  The unmodified modules run it, too: what
 * they lack is left out.
 */
#include <getopt.h>
#include <sys/mount.h>

#include "gmem_mmap_util.h"

#define MAX_SIZES	8
#define NR_SCATTERED	1024

/* Wall time says little on a machine that others use. */
#define NR_TRIES	5

/* How often the watcher is due.  It sees nothing that is shorter. */
#define WATCH_NS	50000

/* Until what an operation has left to RCU is done. */
#define SETTLE_US	50000

struct bench;

/*
 * A kind of memory.  @open makes it, and returns false if it cannot be had; the
 * common part undoes that.
 */
struct backing {
	const char *name;
	bool (*open)(struct bench *b);
	bool gmem;
	bool private;
	bool mapped;	/* by the host */
};

/* One VM, with one kind of memory. */
struct bench {
	const struct backing *backing;
	struct gmem_vm g;
	struct gmem_vm dst;	/* of a handover */
	size_t size;
};

static bool watching;

/*
 * Measuring
 */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/*
 * For how long the (first) CPU has been idle.  All else is work, whoever does it:
 * ksoftirqd has a share.
 */
static uint64_t idle_ns(void)
{
	return gmem_read_long("/proc/timer_list", "  .idle_sleeptime :");
}

static const char * const usage_keys[] = {
	"Slab:", "PageTables:", "SecPageTables:",
};

#define NR_KEYS ARRAY_SIZE(usage_keys)

static void usage_get(long *kb)
{
	int i;

	gmem_write_file("/proc/sys/vm/stat_refresh", "1");
	for (i = 0; i < NR_KEYS; i++)
		kb[i] = gmem_read_long("/proc/meminfo", usage_keys[i]);
}

/*
 * A thread that goes before all others and is due again and again.  Where the
 * kernel can be preempted anywhere (preempt=full), nothing delays it but
 * interrupts that are off and preemption that is: spinning locks do that.
 */
static uint64_t watch_longest;

static void *watch(void *unused)
{
	struct sched_param param = { .sched_priority = 10 };
	uint64_t due, late;
	struct timespec ts;

	TEST_ASSERT(!sched_setscheduler(0, SCHED_FIFO, &param),
		    "sched_setscheduler() failed");
	due = now_ns();
	for (;;) {
		due += WATCH_NS;
		ts.tv_sec = due / 1000000000;
		ts.tv_nsec = due % 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
		late = now_ns() - due;
		WRITE_ONCE(watch_longest, max(watch_longest, late));
		due += late / WATCH_NS * WATCH_NS;
	}
	return NULL;
}

static void measure(struct bench *b, const char *op,
		    void (*run)(struct bench *b), uint64_t pages)
{
	const char *name = b->backing->name;
	long before[NR_KEYS], after[NR_KEYS];
	size_t mib = b->size / SZ_1M;
	uint64_t start, elapsed, idle;

	usleep(SETTLE_US);
	usage_get(before);
	WRITE_ONCE(watch_longest, 0);
	idle = idle_ns();
	start = now_ns();
	run(b);
	elapsed = now_ns() - start;
	idle = idle_ns() - idle;

	if (watching) {
		usleep(SETTLE_US);
		printf("longest %s %s %lu %lu\n", name, op, mib, watch_longest);
		return;
	}
	usage_get(after);
	printf("time %s %s %lu %lu %lu %lu\n", name, op, mib, elapsed,
	       elapsed - min(idle, elapsed), pages);
	printf("memory %s %s %lu %ld %ld %ld\n", name, op, mib,
	       after[0] - before[0], after[1] - before[1],
	       after[2] - before[2]);
}

static uint64_t nr_pages(const struct bench *b)
{
	return b->size / PAGE_SIZE;
}

static void measure_all(struct bench *b, const char *op,
			void (*run)(struct bench *b))
{
	measure(b, op, run, nr_pages(b));
}

/*
 * VMs
 */

/* Write a word of each page. */
static void guest_touch(uint64_t gpa, uint64_t size)
{
	uint64_t end = gpa + size;

	for (; gpa < end; gpa += PAGE_SIZE)
		WRITE_ONCE(*(uint64_t *)gpa, 1);
	GUEST_UCALL_NONE();
}

/*
 * The guest maps the memory in huge pages: its page tables are small, and what it
 * takes to fault them in does not count.
 */
static void create_vm(struct gmem_vm *g, size_t size, uint32_t type)
{
	const struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = type,
	};

	*g = (struct gmem_vm){ .size = size, .fd = -1 };
	g->vm = __vm_create_shape_with_one_vcpu(shape, &g->vcpu, 0, NULL);
	vcpu_regs_get(g->vcpu, &g->regs);
	virt_map_level(g->vm, GMEM_GPA, GMEM_GPA, align_up(size, SZ_2M),
		       PG_LEVEL_2M);
	TEST_ASSERT_EQ(__gmem_guest_run(g, guest_touch, GMEM_GPA, 0, 0, 0), 0);
}

/* @size bytes where huge pages can be, at the same offset as in the guest. */
static void *map_aligned(size_t size, int fd)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *mem = gmem_mmap(size + SZ_2M);
	void *aligned = align_ptr_up(mem, SZ_2M);

	munmap(mem, size + SZ_2M);
	mem = mmap(aligned, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd,
		   0);
	TEST_ASSERT(mem != MAP_FAILED, "mmap() of 0x%lx bytes failed", size);
	return mem;
}

static bool open_private(struct bench *b)
{
	create_vm(&b->g, b->size, KVM_X86_SW_PROTECTED_VM);
	b->g.shared = gmem_mmap(b->size);
	b->g.fd = vm_create_guest_memfd(b->g.vm, b->size, 0);
	return true;
}

/* Only where it is another kind of memory. */
static bool open_private_4k(struct bench *b)
{
	if (!gmem_may_be_huge())
		return false;

	gmem_write_file(GMEM_HUGE_FOLIOS, "N");
	open_private(b);
	gmem_write_file(GMEM_HUGE_FOLIOS, "Y");
	return true;
}

static bool open_mmap(struct bench *b)
{
	if ((kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS) & GMEM_BOTH) != GMEM_BOTH)
		return false;

	create_vm(&b->g, b->size, VM_TYPE_DEFAULT);
	b->g.fd = vm_create_guest_memfd(b->g.vm, b->size, GMEM_BOTH);
	b->g.shared = map_aligned(b->size, b->g.fd);
	return true;
}

static bool open_file(struct bench *b, int fd)
{
	TEST_ASSERT(fd >= 0 && !ftruncate(fd, b->size), "no file of 0x%lx bytes",
		    b->size);
	create_vm(&b->g, b->size, VM_TYPE_DEFAULT);
	b->g.fd = fd;
	b->g.shared = map_aligned(b->size, fd);
	return true;
}

static bool open_anon(struct bench *b, int advice)
{
	create_vm(&b->g, b->size, VM_TYPE_DEFAULT);
	b->g.shared = map_aligned(b->size, -1);
	return !madvise(b->g.shared, b->size, advice);
}

static bool open_anon_4k(struct bench *b)
{
	return open_anon(b, MADV_NOHUGEPAGE);
}

static bool open_anon_huge(struct bench *b)
{
	return open_anon(b, MADV_HUGEPAGE);
}

static bool open_memfd(struct bench *b)
{
	return open_file(b, memfd_create("bench", 0));
}

/* On a filesystem of its own, that nobody sees. */
static bool open_memfd_huge(struct bench *b)
{
	char dir[] = "/tmp/gmem_bench.XXXXXX";
	int fd;

	TEST_ASSERT(mkdtemp(dir), "mkdtemp() failed");
	if (mount("bench", dir, "tmpfs", 0, "huge=always,size=90%")) {
		rmdir(dir);
		return false;
	}
	fd = open(dir, O_RDWR | O_TMPFILE, 0600);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	return open_file(b, fd);
}

#define NR_HUGEPAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static bool open_hugetlb(struct bench *b)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", b->size / SZ_2M);
	__gmem_write_file("/proc/sys/vm/compact_memory", "1");
	if (__gmem_write_file(NR_HUGEPAGES, text))
		return false;
	if (gmem_read_long(NR_HUGEPAGES, "") < b->size / SZ_2M)
		return false;
	return open_file(b, memfd_create("bench", MFD_HUGETLB));
}

static const struct backing backings[] = {
	{ "private", open_private, .gmem = true, .private = true },
	{ "private_4k", open_private_4k, .gmem = true, .private = true },
	{ "mmap", open_mmap, .gmem = true, .mapped = true },
	{ "anon_4k", open_anon_4k, .mapped = true },
	{ "anon_huge", open_anon_huge, .mapped = true },
	{ "memfd_4k", open_memfd, .mapped = true },
	{ "memfd_huge", open_memfd_huge, .mapped = true },
	{ "hugetlb", open_hugetlb, .mapped = true },
};

/* Give what open() has left of itself back. */
static void end(struct bench *b)
{
	gmem_vm_free(&b->g);
	if (b->backing->open == open_hugetlb)
		__gmem_write_file(NR_HUGEPAGES, "0");
}

static bool begin(struct bench *b, const struct backing *backing, size_t size)
{
	*b = (struct bench){ .backing = backing, .size = size };
	if (backing->open(b)) {
		gmem_set_slot(b->g.vm, GMEM_SLOT,
			      backing->gmem ? KVM_MEM_GUEST_MEMFD : 0, GMEM_GPA,
			      size, b->g.shared, backing->gmem ? b->g.fd : -1,
			      0);
		return true;
	}

	end(b);
	return false;
}

/*
 * Operations
 */

static void run_guest(struct bench *b)
{
	TEST_ASSERT_EQ(__gmem_guest_end(&b->g), 0);
}

static void start_touch(struct bench *b)
{
	gmem_guest_start(&b->g, guest_touch, GMEM_GPA, b->size, 0, 0);
}

static void touch(struct bench *b, const char *op)
{
	start_touch(b);
	measure_all(b, op, run_guest);
}

static void host_touch(struct bench *b)
{
	size_t offset;

	for (offset = 0; offset < b->size; offset += PAGE_SIZE)
		WRITE_ONCE(*(uint64_t *)(b->g.shared + offset), 1);
}

static void prefault(struct bench *b)
{
	uint64_t left = b->size;

	while (left) {
		TEST_ASSERT_EQ(__gmem_pre_fault(b->g.vcpu,
						GMEM_GPA + b->size - left, left,
						0, &left), 0);
	}
}

static void allocate(struct bench *b)
{
	gmem_allocate(b->g.fd, 0, b->size);
}

static void punch(struct bench *b)
{
	if (b->g.fd >= 0)
		gmem_punch(b->g.fd, 0, b->size);
	else
		TEST_ASSERT(!madvise(b->g.shared, b->size, MADV_DONTNEED),
			    "madvise() failed");
}

static void set_private(struct bench *b)
{
	vm_mem_set_private(b->g.vm, GMEM_GPA, b->size);
}

static void set_shared(struct bench *b)
{
	vm_mem_set_shared(b->g.vm, GMEM_GPA, b->size);
}

static void delete_slot(struct bench *b)
{
	gmem_delete_slot(b->g.vm, GMEM_SLOT);
}

/* The memory goes, with the last of what holds it. */
static void close_last(struct bench *b)
{
	if (b->backing->mapped) {
		munmap(b->g.shared, b->size);
		b->g.shared = NULL;
	}
	if (b->g.fd >= 0)
		gmem_vm_close_fd(&b->g);
}

/* All at once, with the memory mapped. */
static void destroy_vm(struct bench *b)
{
	if (b->g.fd >= 0)
		gmem_vm_close_fd(&b->g);
	gmem_free_dead_vm(b->g.vm);
	b->g.vm = NULL;
	munmap(b->g.shared, b->size);
}

/* Convert single pages all over the memory, in no order. */
static uint64_t nr_scattered(struct bench *b)
{
	return min((uint64_t)NR_SCATTERED, nr_pages(b) / 16);
}

static void scatter(struct bench *b, uint64_t attributes)
{
	uint64_t nr = nr_scattered(b);
	uint64_t stride = b->size / nr;
	uint64_t i, gpa;

	for (i = 0; i < nr; i++) {
		gpa = GMEM_GPA + i * 421 % nr * stride;
		vm_set_memory_attributes(b->g.vm, gpa, PAGE_SIZE, attributes);
	}
}

static void scatter_shared(struct bench *b)
{
	scatter(b, 0);
}

static void scatter_private(struct bench *b)
{
	scatter(b, KVM_MEMORY_ATTRIBUTE_PRIVATE);
}

static void link_dst(struct bench *b)
{
	b->dst.fd = gmem_link(b->dst.vm, b->g.fd, 0);
}

static void move_dst(struct bench *b)
{
	gmem_move(b->dst.vm, b->g.vm);
}

/*
 * From the VM's creation to its guest's first instruction, all in system calls:
 * what the library does costs more.
 */

static struct {
	void *code;
	struct kvm_run *run;
	size_t run_size;
	int kvm, vm, vcpu, fd;
} tiny;

static void tiny_set_slot(uint32_t slot, uint64_t gpa, size_t size, int fd)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot,
		.flags = fd < 0 ? 0 : KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)tiny.code,
		.guest_memfd = fd,
	};

	TEST_ASSERT(!ioctl(tiny.vm, KVM_SET_USER_MEMORY_REGION2, &region),
		    "KVM_SET_USER_MEMORY_REGION2 failed");
}

static void tiny_create(struct bench *b)
{
	struct kvm_create_guest_memfd gmem = { .size = b->size };
	struct kvm_memory_attributes attr = {
		.address = GMEM_GPA,
		.size = b->size,
		.attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE,
	};
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs sregs;
	bool ok;

	tiny.vm = ioctl(tiny.kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	tiny.fd = ioctl(tiny.vm, KVM_CREATE_GUEST_MEMFD, &gmem);
	tiny_set_slot(0, 0, PAGE_SIZE, -1);
	tiny_set_slot(1, GMEM_GPA, b->size, tiny.fd);
	ok = !ioctl(tiny.vm, KVM_SET_MEMORY_ATTRIBUTES, &attr);

	tiny.vcpu = ioctl(tiny.vm, KVM_CREATE_VCPU, 0);
	tiny.run = mmap(NULL, tiny.run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			tiny.vcpu, 0);
	ok &= tiny.run != MAP_FAILED;
	ok &= !ioctl(tiny.vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	ok &= !ioctl(tiny.vcpu, KVM_SET_SREGS, &sregs);
	ok &= !ioctl(tiny.vcpu, KVM_SET_REGS, &regs);
	TEST_ASSERT(ok && !ioctl(tiny.vcpu, KVM_RUN, NULL) &&
		    tiny.run->exit_reason == KVM_EXIT_HLT, "it does not halt");
}

static void tiny_destroy(struct bench *b)
{
	munmap(tiny.run, tiny.run_size);
	close(tiny.vcpu);
	close(tiny.vm);
	close(tiny.fd);
}

/*
 * What is measured, in order
 */

static void bench_creation(struct bench *b)
{
	tiny.code = gmem_mmap(b->size);
	*(uint8_t *)tiny.code = 0xf4;	/* hlt */
	tiny.kvm = open_kvm_dev_path_or_exit();
	tiny.run_size = ioctl(tiny.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	measure(b, "vm_create", tiny_create, 1);
	measure(b, "vm_destroy_unused", tiny_destroy, 1);
	close(tiny.kvm);
	munmap(tiny.code, b->size);
}

/* What only private memory has.  All of it is mapped afterwards. */
static void bench_attributes(struct bench *b)
{
	measure_all(b, "set_private", set_private);
	touch(b, "first_touch");
	measure_all(b, "to_shared", set_shared);
	measure_all(b, "to_private", set_private);
	touch(b, "touch_again");
	measure(b, "scatter_to_shared", scatter_shared, nr_scattered(b));
	measure(b, "scatter_to_private", scatter_private, nr_scattered(b));
	start_touch(b);
	run_guest(b);
}

/* From all mapped to all gone. */
static void bench_file(struct bench *b)
{
	measure_all(b, "punch", punch);
	if (b->g.fd >= 0) {
		measure_all(b, "fallocate", allocate);
		touch(b, "touch_allocated");
	} else {
		start_touch(b);
		run_guest(b);
	}
	measure_all(b, "delete_slot", delete_slot);
	measure_all(b, "close", close_last);
}

static void bench_handover(struct bench *b)
{
	create_vm(&b->dst, b->size, KVM_X86_SW_PROTECTED_VM);
	b->dst.shared = gmem_mmap(b->size);
	measure(b, "link", link_dst, 1);
	gmem_vm_bind(&b->dst);
	measure(b, "move", move_dst, 1);
	gmem_vm_free(&b->g);
	b->g = b->dst;
	touch(b, "touch_moved");
}

static void bench_private(const struct backing *backing, size_t size)
{
	struct bench b;

	if (!begin(&b, backing, size))
		return;
	bench_creation(&b);
	bench_attributes(&b);
	bench_file(&b);
	end(&b);

	begin(&b, backing, size);
	set_private(&b);
	measure_all(&b, "prefault", prefault);
	if (kvm_has_cap(KVM_CAP_GUEST_MEMFD_LINK))
		bench_handover(&b);
	measure_all(&b, "vm_destroy", destroy_vm);
	end(&b);
}

static void bench_other(const struct backing *backing, size_t size)
{
	struct bench b;

	if (!begin(&b, backing, size))
		return;
	touch(&b, "first_touch");
	bench_file(&b);
	end(&b);

	begin(&b, backing, size);
	measure_all(&b, "host_touch", host_touch);
	measure_all(&b, "map_again", prefault);
	measure_all(&b, "vm_destroy", destroy_vm);
	end(&b);

	begin(&b, backing, size);
	measure_all(&b, "prefault", prefault);
	end(&b);
}

/*
 * Two vCPUs
 */

static void *run_half(void *arg)
{
	TEST_ASSERT_EQ(__gmem_guest_end(arg), 0);
	return NULL;
}

static void run_both(struct bench *b)
{
	pthread_t thread = gmem_thread(run_half, &b->dst);

	run_half(&b->g);
	pthread_join(thread, NULL);
}

static void bench_two_vcpus(size_t size)
{
	size_t half = size / 2;
	struct bench b;
	int i;

	begin(&b, &backings[0], size);
	set_private(&b);
	b.dst = b.g;
	b.dst.vcpu = vm_vcpu_add(b.g.vm, 1, NULL);
	vcpu_regs_get(b.dst.vcpu, &b.dst.regs);
	TEST_ASSERT_EQ(__gmem_guest_run(&b.dst, guest_touch, GMEM_GPA, 0, 0, 0),
		       0);

	for (i = 0; i < NR_TRIES; i++) {
		touch(&b, "one_vcpu");
		punch(&b);
		gmem_guest_start(&b.g, guest_touch, GMEM_GPA, half, 0, 0);
		gmem_guest_start(&b.dst, guest_touch, GMEM_GPA + half, half, 0,
				 0);
		measure_all(&b, "two_vcpus", run_both);
		punch(&b);
	}
	end(&b);
}

static void usage(const char *name)
{
	printf("Usage: %s [--size MIB]... [--all | --watch | --vcpus]\n"
	       "Without --size: 64\n"
	       "--all     other kinds of memory, too, of the first size\n"
	       "--watch   print the longest time for which others cannot run\n"
	       "--vcpus   nothing but two vCPUs that touch memory at once\n",
	       name);
}

int main(int argc, char *argv[])
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "all", no_argument, NULL, 'a' },
		{ "watch", no_argument, NULL, 'w' },
		{ "vcpus", no_argument, NULL, 'v' },
		{},
	};
	size_t sizes[MAX_SIZES], size;
	bool all = false, vcpus = false;
	int i, j, opt, nr_sizes = 0;

	/* No tests, but the helpers come with their harness. */
	(void)test_harness_run;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		size = opt == 's' ? strtoul(optarg, NULL, 0) : 0;
		if (size && size % 4 == 0 && nr_sizes < MAX_SIZES) {
			sizes[nr_sizes++] = size * SZ_1M;
		} else if (opt == 'a') {
			all = true;
		} else if (opt == 'w') {
			watching = true;
		} else if (opt == 'v') {
			vcpus = true;
		} else {
			usage(argv[0]);
			return 2;
		}
	}
	if (!nr_sizes)
		sizes[nr_sizes++] = SZ_64M;

	gmem_require_sw_protected();
	/* Nothing is sent while something is being measured. */
	setvbuf(stdout, gmem_mmap(SZ_1M), _IOFBF, SZ_1M);
	if (watching)
		gmem_thread(watch, NULL);
	for (i = 0; i < nr_sizes && vcpus; i++)
		bench_two_vcpus(sizes[i]);
	for (i = 0; i < ARRAY_SIZE(backings) && !vcpus; i++) {
		if (!backings[i].private) {
			if (all)
				bench_other(&backings[i], sizes[0]);
			continue;
		}
		for (j = 0; j < nr_sizes; j++)
			bench_private(&backings[i], sizes[j]);
	}
	return 0;
}
