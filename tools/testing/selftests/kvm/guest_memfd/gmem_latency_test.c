// SPDX-License-Identifier: GPL-2.0
/*
 * Nobody waits long for an operation on memory, however much there is of it: a
 * thread that is to run gets the CPU in the midst of one, and one that has no end
 * in sight ends when it is killed.
 *
 * The machine may be emulated, on a host that has other things to do, and any
 * one measurement be wrong by much.  So an operation has several tries, of which
 * one that is good is enough: what is at fault each time is the operation.
 */
#include <sys/resource.h>

#include "gmem_mmap_util.h"

#define MEM_SIZE    SZ_128M
#define SPARSE_SIZE (4096ul * SZ_1G)
#define NR_RANGES   100000
#define NR_SLOTS    12000
#define NR_FILES    3000
#define NR_SHARERS  60

/* An operation that does not let others run at all would be found out. */
#define SLACK_US   20000
#define MAX_SHARE  8		/* of the operation's time */
#define AFTER_MS   100		/* until what it has left to others is done */
#define TRIES	   5

/*
 * What the operations work on: a VM without a guest, its memory, and other VMs
 * with links of that.
 */
struct work {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	int fd;
	void *shared;
	int nr_files, nr_others;
	int files[NR_FILES];
	struct kvm_vm *others[NR_SHARERS];
};

static void make_vm(struct work *w)
{
	w->vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	w->vcpu = __vm_vcpu_add(w->vm, 0);
	w->fd = vm_create_guest_memfd(w->vm, MEM_SIZE, 0);
	w->shared = gmem_mmap(MEM_SIZE);
}

/* A page in each GiB of much memory */
static void make_sparse(struct work *w)
{
	uint64_t at;

	make_vm(w);
	close(w->fd);
	w->fd = vm_create_guest_memfd(w->vm, SPARSE_SIZE, 0);
	for (at = 0; at < SPARSE_SIZE; at += SZ_1G)
		gmem_allocate(w->fd, at, PAGE_SIZE);
}

static void punch_sparse(struct work *w)
{
	gmem_punch(w->fd, 0, SPARSE_SIZE);
}

static void close_file(struct work *w)
{
	TEST_ASSERT(!close(w->fd), "close() of a guest_memfd failed");
	w->fd = -1;
}

static void end_vm(struct work *w)
{
	kvm_vm_free(w->vm);
	w->vm = NULL;
}

static void clean_up(struct work *w)
{
	if (w->fd >= 0)
		close_file(w);
	while (w->nr_files)
		close(w->files[--w->nr_files]);
	while (w->nr_others)
		kvm_vm_free(w->others[--w->nr_others]);
	if (w->vm)
		end_vm(w);
	munmap(w->shared, MEM_SIZE);
}

static void set_slot(struct kvm_vm *vm, struct work *w, int fd)
{
	gmem_set_slot(vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, MEM_SIZE,
		      w->shared, fd, 0);
}

static void make_bound(struct work *w)
{
	make_vm(w);
	set_slot(w->vm, w, w->fd);
	vm_mem_set_private(w->vm, GMEM_GPA, MEM_SIZE);
}

static void pre_fault(struct work *w)
{
	uint64_t left = MEM_SIZE;

	while (left) {
		TEST_ASSERT_EQ(__gmem_pre_fault(w->vcpu,
						GMEM_GPA + MEM_SIZE - left, left,
						0, &left), 0);
	}
}

static void make_mapped(struct work *w)
{
	make_bound(w);
	pre_fault(w);
}

static void allocate(struct work *w)
{
	gmem_allocate(w->fd, 0, MEM_SIZE);
}

static void make_allocated(struct work *w)
{
	make_vm(w);
	allocate(w);
}

static void punch(struct work *w)
{
	gmem_punch(w->fd, 0, MEM_SIZE);
}

static void convert(struct work *w)
{
	vm_mem_set_shared(w->vm, GMEM_GPA, MEM_SIZE);
}

static void delete_slot(struct work *w)
{
	gmem_delete_slot(w->vm, GMEM_SLOT);
}

/* Every other page is private. */
static void make_ranges(struct work *w)
{
	int i;

	make_vm(w);
	for (i = 0; i < NR_RANGES; i++)
		vm_mem_set_private(w->vm, GMEM_GPA + 2 * i * PAGE_SIZE,
				   PAGE_SIZE);
}

static void convert_ranges(struct work *w)
{
	vm_mem_set_private(w->vm, GMEM_GPA, 2ul * NR_RANGES * PAGE_SIZE);
}

static void add_slot(struct work *w)
{
	set_slot(w->vm, w, w->fd);
}

/* Each page of the first ones in a slot of its own */
static void set_slots(struct kvm_vm *vm, struct work *w, int fd)
{
	int i;

	for (i = 0; i < NR_SLOTS; i++)
		gmem_set_slot(vm, i, KVM_MEM_GUEST_MEMFD,
			      GMEM_GPA + i * PAGE_SIZE, PAGE_SIZE, w->shared,
			      fd, i * PAGE_SIZE);
}

/* All of them are mapped. */
static void make_slots(struct work *w)
{
	uint64_t size = NR_SLOTS * PAGE_SIZE, left = size;

	make_vm(w);
	vm_mem_set_private(w->vm, GMEM_GPA, MEM_SIZE);
	set_slots(w->vm, w, w->fd);
	while (left) {
		TEST_ASSERT_EQ(__gmem_pre_fault(w->vcpu, GMEM_GPA + size - left,
						left, 0, &left), 0);
	}
}

static struct kvm_vm *add_vm(struct work *w)
{
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);

	w->others[w->nr_others++] = vm;
	return vm;
}

static void make_successor(struct work *w)
{
	struct kvm_vm *vm;
	int link;

	make_slots(w);
	vm = add_vm(w);
	link = gmem_link(vm, w->fd, 0);
	set_slots(vm, w, link);
	close(link);
}

static void move(struct work *w)
{
	gmem_move(w->others[0], w->vm);
}

static void make_files(struct work *w)
{
	struct rlimit limit = { NR_FILES * 2, NR_FILES * 2 };

	TEST_ASSERT(!setrlimit(RLIMIT_NOFILE, &limit), "setrlimit() failed");
	make_vm(w);
	while (w->nr_files < NR_FILES)
		w->files[w->nr_files++] = vm_create_guest_memfd(w->vm, SZ_1M, 0);
}

static void make_shared(struct work *w)
{
	struct kvm_vm *vm;
	int link;

	make_mapped(w);
	while (w->nr_others < NR_SHARERS) {
		vm = add_vm(w);
		link = gmem_link(vm, w->fd, KVM_LINK_GUEST_MEMFD_SHARE);
		set_slot(vm, w, link);
		close(link);
	}
}

/*
 * Watch from a thread that always goes first, on the one CPU that there is for
 * both, how long it has to wait at most.
 */

struct watcher {
	pthread_t thread;
	bool ready, stop;
	uint64_t longest_us;
};

static void *watch(void *arg)
{
	struct sched_param param = { .sched_priority = 10 };
	struct watcher *w = arg;
	uint64_t last, now;

	TEST_ASSERT(!sched_setscheduler(0, SCHED_FIFO, &param),
		    "sched_setscheduler() failed");
	last = gmem_now_us();
	while (!READ_ONCE(w->stop)) {
		usleep(1000);
		now = gmem_now_us();
		w->longest_us = max(w->longest_us, now - last);
		last = now;
		WRITE_ONCE(w->ready, true);
	}
	return NULL;
}

FIXTURE(latency)
{
	struct gmem_usage usage;
};

FIXTURE_VARIANT(latency)
{
	void (*prepare)(struct work *w);
	void (*run)(struct work *w);
};

FIXTURE_VARIANT_ADD(latency, allocate) { make_vm, allocate };
FIXTURE_VARIANT_ADD(latency, pre_fault) { make_bound, pre_fault };
FIXTURE_VARIANT_ADD(latency, punch) { make_mapped, punch };
FIXTURE_VARIANT_ADD(latency, punch_shared_memory) { make_shared, punch };
FIXTURE_VARIANT_ADD(latency, punch_under_many_slots) { make_slots, punch };
FIXTURE_VARIANT_ADD(latency, punch_sparse_memory) { make_sparse, punch_sparse };
FIXTURE_VARIANT_ADD(latency, close_file) { make_allocated, close_file };
FIXTURE_VARIANT_ADD(latency, convert) { make_mapped, convert };
FIXTURE_VARIANT_ADD(latency, convert_many_ranges) { make_ranges, convert_ranges };
FIXTURE_VARIANT_ADD(latency, convert_many_slots) { make_slots, convert };
FIXTURE_VARIANT_ADD(latency, add_slot_over_many_ranges) { make_ranges, add_slot };
FIXTURE_VARIANT_ADD(latency, delete_slot) { make_mapped, delete_slot };
FIXTURE_VARIANT_ADD(latency, move_with_many_slots) { make_successor, move };
FIXTURE_VARIANT_ADD(latency, end_vm) { make_mapped, end_vm };
FIXTURE_VARIANT_ADD(latency, end_vm_with_many_ranges) { make_ranges, end_vm };
FIXTURE_VARIANT_ADD(latency, end_vm_with_many_slots) { make_slots, end_vm };
FIXTURE_VARIANT_ADD(latency, end_vm_with_many_files) { make_files, end_vm };

FIXTURE_SETUP(latency)
{
	gmem_usage_get(&self->usage);
	kvm_pin_this_task_to_pcpu(0);
}

FIXTURE_TEARDOWN(latency)
{
	gmem_usage_check(&self->usage);
}

/* Run the operation once.  Return how long it took. */
static uint64_t run_watched(void (*run)(struct work *w), struct work *work,
			    uint64_t *longest_us)
{
	struct watcher w = {};
	uint64_t start, took;

	w.thread = gmem_thread(watch, &w);
	while (!READ_ONCE(w.ready))
		usleep(1000);
	WRITE_ONCE(w.longest_us, 0);
	start = gmem_now_us();
	run(work);
	took = gmem_now_us() - start;
	usleep(AFTER_MS * 1000);
	WRITE_ONCE(w.stop, true);
	pthread_join(w.thread, NULL);
	*longest_us = w.longest_us;
	return took;
}

TEST_F(latency, others_can_run)
{
	static struct work w;
	uint64_t took, longest;
	int i;

	for (i = 0; i < TRIES; i++) {
		w = (struct work){ .fd = -1 };
		variant->prepare(&w);
		took = run_watched(variant->run, &w, &longest);
		clean_up(&w);
		TH_LOG("took %lu us, others waited for up to %lu us", took,
		       longest);
		if (longest < SLACK_US + took / MAX_SHARE)
			return;
	}
	TEST_FAIL("others cannot run");
}

/*
 * Operations on more memory than there is, which would go on for very long
 */

#define HUGE_SIZE (512ul * SZ_1G)

FIXTURE(kill)
{
	struct gmem_usage usage;
};

FIXTURE_VARIANT(kill)
{
	unsigned long flags;
	void (*run)(int fd, struct kvm_vm *vm);
};

static void allocate_huge(int fd, struct kvm_vm *vm)
{
	__gmem_allocate(fd, 0, HUGE_SIZE);
}

static void pre_fault_huge(int fd, struct kvm_vm *vm)
{
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, 0);

	gmem_set_slot(vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA, HUGE_SIZE,
		      gmem_mmap(HUGE_SIZE), fd, 0);
	vm_mem_set_private(vm, GMEM_GPA, HUGE_SIZE);
	__gmem_pre_fault(vcpu, GMEM_GPA, HUGE_SIZE, 0, NULL);
}

static void map_huge(int fd, struct kvm_vm *vm)
{
	mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
	     fd, 0);
}

FIXTURE_VARIANT_ADD(kill, allocate)
{
	.run = allocate_huge,
};

FIXTURE_VARIANT_ADD(kill, pre_fault)
{
	.run = pre_fault_huge,
};

FIXTURE_VARIANT_ADD(kill, map)
{
	.flags = GMEM_BOTH,
	.run = map_huge,
};

FIXTURE_SETUP(kill)
{
	gmem_usage_get(&self->usage);
}

FIXTURE_TEARDOWN(kill)
{
	gmem_usage_check(&self->usage);
}

static void be_killed(int sock, unsigned long flags,
		      void (*run)(int fd, struct kvm_vm *vm))
{
	struct kvm_vm *vm;
	int fd;

	vm = vm_create_barebones_type(flags ? VM_TYPE_DEFAULT :
					      KVM_X86_SW_PROTECTED_VM);
	fd = vm_create_guest_memfd(vm, HUGE_SIZE, flags);
	gmem_send_fd(sock, fd);
	run(fd, vm);
	_exit(0);
}

/*
 * It got somewhere, was killed and is soon gone; and not because the machine had
 * no more memory for it.
 */
TEST_F(kill, ends_it)
{
	long memory = gmem_read_long("/proc/meminfo", "MemTotal:") / 4;
	int i, fd, status, sock[2];
	long base, pages;
	uint64_t killed;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	for (i = 0; i < TRIES; i++) {
		base = gmem_file_pages();
		pid = gmem_fork();
		if (!pid)
			be_killed(sock[1], variant->flags, variant->run);
		fd = gmem_receive_fd(sock[0]);
		while (gmem_file_pages() < base + 1000)
			ASSERT_EQ(0, waitpid(pid, &status, WNOHANG));
		killed = gmem_now_ms();
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(SIGKILL, status);
		killed = gmem_now_ms() - killed;
		pages = gmem_file_pages() - base;
		close(fd);
		TH_LOG("took %lu ms, with %ld MiB", killed, pages / 256);
		if (killed < 1000 && pages < memory / 4 * 3)
			break;
	}
	EXPECT_GT(TRIES, i);
	close(sock[0]);
	close(sock[1]);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	gmem_require_mmap();
	return test_harness_run(argc, argv);
}
