/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fuzzer's VMs, and how it says what has gone wrong.
 *
 * A VM is as small as can be: 32-bit code in a flat address space, without page
 * tables, so that guest addresses are guest physical ones.  It works through a
 * list of accesses in one KVM_RUN, up to one that does not succeed.
 */
#ifndef SELFTEST_KVM_GMEM_FUZZ_VM_H
#define SELFTEST_KVM_GMEM_FUZZ_VM_H

#include "gmem_fuzz_model.h"

#define MAX_STEPS	2000
#define MAX_TYPES	24
#define LINE_SIZE	160

/* Shared by all processes of a sequence and by who started it. */
struct fuzz {
	struct model model;
	int step;		/* that is being done */
	int nr_done;		/* steps that did something */
	int nr_accesses;
	int nr_handed_over;	/* views, by moves */
	uint32_t last_word;
	int nr_sent;		/* descriptors that are in flight */
	int type;		/* of the operation */
	int nr_ok[MAX_TYPES];	/* calls of it that succeeded, and were refused */
	int nr_refused[MAX_TYPES];
	bool failed;
	char failure[LINE_SIZE];
	char log[MAX_STEPS + 1][LINE_SIZE];
};

static struct fuzz *fuzz;

/* What the step does, or more of that. */
static inline __printf(1, 2) void say(const char *fmt, ...)
{
	char *line = fuzz->log[fuzz->step];
	size_t len = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + len, LINE_SIZE - len, fmt, ap);
	va_end(ap);
}

/* The end of the sequence. */
static inline __printf(1, 2) __noreturn void fail(const char *fmt, ...)
{
	va_list ap;

	if (!fuzz->failed) {
		va_start(ap, fmt);
		vsnprintf(fuzz->failure, LINE_SIZE, fmt, ap);
		va_end(ap);
		fuzz->failed = true;
	}
	_exit(1);
}

#define MUST(cond, what)						\
do {									\
	if (!(cond))							\
		fail("%s: %s", what, strerror(errno));			\
} while (0)

static const char *errno_name(int err)
{
	return err ? strerrorname_np(err) : "success";
}

static inline void count(bool ok)
{
	if (ok)
		fuzz->nr_ok[fuzz->type]++;
	else
		fuzz->nr_refused[fuzz->type]++;
}

/* @ret is a system call's, and @want the errno that it must give. */
static inline bool expect_errno(int want, long ret)
{
	int got = ret < 0 ? errno : 0;

	say(": %s", errno_name(got));
	if (got != want)
		fail("%s instead of %s", errno_name(got), errno_name(want));
	count(!want);
	return !want;
}

/*
 * The guest
 */

#define LOW_SLOT	100
#define LOW_SIZE	(2 * PAGE_SIZE)
#define LIST_GPA	PAGE_SIZE	/* the page behind the code */
#define WINDOW		0x10000000ull

struct guest_access {
	uint32_t gpa;		/* 0 ends the list */
	uint32_t write;
	uint32_t word;		/* that was read, or is to be written */
	uint32_t unused;
};

extern const char fuzz_guest[], fuzz_guest_end[];

asm(".pushsection .rodata\n"
	".code32\n"
	"fuzz_guest:\n"
	"	mov (%esi), %eax\n"
	"	test %eax, %eax\n"
	"	jz 3f\n"
	"	cmpl $0, 4(%esi)\n"
	"	jne 1f\n"
	"	mov (%eax), %ebx\n"
	"	mov %ebx, 8(%esi)\n"
	"	jmp 2f\n"
	"1:	mov 8(%esi), %ebx\n"
	"	mov %ebx, (%eax)\n"
	"2:	add $16, %esi\n"
	"	jmp fuzz_guest\n"
	"3:	hlt\n"
	"fuzz_guest_end:\n"
	".code64\n"
	".popsection\n");

static int kvm_dev_fd = -1;

static inline long set_region(struct model_vm *vm, uint32_t slot,
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

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region);
}

static inline void *map_shared(size_t size, int fd)
{
	int flags = MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0);
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	MUST(mem != MAP_FAILED, "mmap()");
	return mem;
}

static inline void flatten(struct kvm_segment *seg, int type)
{
	*seg = (struct kvm_segment) {
		.limit = 0xffffffff,
		.selector = 8,
		.type = type,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
	};
}

static inline void tiny_create(struct model_vm *vm, bool protected, int process)
{
	int type = protected ? KVM_X86_SW_PROTECTED_VM : VM_TYPE_DEFAULT;
	struct kvm_sregs sregs;

	memset(vm, 0, sizeof(*vm));
	if (kvm_dev_fd < 0)
		kvm_dev_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	vm->fd = ioctl(kvm_dev_fd, KVM_CREATE_VM, type);
	MUST(vm->fd >= 0, "KVM_CREATE_VM");
	vm->vcpu_fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	MUST(vm->vcpu_fd >= 0, "KVM_CREATE_VCPU");
	vm->run = map_shared(PAGE_SIZE, vm->vcpu_fd);
	vm->low = map_shared(LOW_SIZE, -1);
	vm->mem = map_shared(NR_GFNS * unit, -1);
	memcpy(vm->low, fuzz_guest, fuzz_guest_end - fuzz_guest);
	MUST(!set_region(vm, LOW_SLOT, 0, 0, LOW_SIZE, vm->low, -1, 0), "memslot");

	MUST(!ioctl(vm->vcpu_fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	flatten(&sregs.cs, 11);
	flatten(&sregs.ds, 3);
	sregs.es = sregs.ds;
	sregs.ss = sregs.ds;
	sregs.cr0 |= X86_CR0_PE;
	MUST(!ioctl(vm->vcpu_fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	vm->run->kvm_valid_regs = KVM_SYNC_X86_REGS;

	vm->process = process;
	vm->protected = protected;
	vm->used = true;
}

static inline void tiny_destroy(struct model_vm *vm)
{
	munmap(vm->run, PAGE_SIZE);
	close(vm->vcpu_fd);
	close(vm->fd);
	munmap(vm->low, LOW_SIZE);
	munmap(vm->mem, NR_GFNS * unit);
}

static inline struct guest_access *tiny_list(struct model_vm *vm)
{
	return vm->low + LIST_GPA;
}

/* Go on with access @i of the list. */
static inline int tiny_enter(struct model_vm *vm, int i)
{
	struct kvm_run *run = vm->run;

	run->s.regs.regs = (struct kvm_regs) {
		.rip = 0,
		.rflags = X86_EFLAGS_FIXED,
		.rsi = LIST_GPA + i * sizeof(struct guest_access),
	};
	run->kvm_dirty_regs = KVM_SYNC_X86_REGS;

	/* What KVM does not write must not look like an answer. */
	run->exit_reason = -1;
	memset(&run->memory_fault, 0xff, sizeof(run->memory_fault));
	return ioctl(vm->vcpu_fd, KVM_RUN, NULL) ? errno : 0;
}

/* Have an access that nobody answers behind us. */
static inline void tiny_complete_mmio(struct model_vm *vm)
{
	memset(vm->run->mmio.data, 0, sizeof(vm->run->mmio.data));
	vm->run->immediate_exit = 1;
	MUST(ioctl(vm->vcpu_fd, KVM_RUN, NULL) < 0 && errno == EINTR,
	     "completion of MMIO");
	vm->run->immediate_exit = 0;
}

/* The last exit is a memory fault at @gfn of the window. */
static inline void tiny_check_fault(struct model_vm *vm, int gfn)
{
	uint64_t flags = vm->private[gfn] ? KVM_MEMORY_EXIT_FLAG_PRIVATE : 0;
	struct kvm_run *run = vm->run;

	if (run->memory_fault.flags != flags ||
	    run->memory_fault.gpa != WINDOW + gfn * unit ||
	    run->memory_fault.size != PAGE_SIZE)
		fail("gfn %d: memory fault with flags 0x%llx, gpa 0x%llx, size 0x%llx",
		     gfn, run->memory_fault.flags, run->memory_fault.gpa,
		     run->memory_fault.size);
}

/*
 * Work through the list of @nr accesses.  Tell for each what it has found.
 */
static inline void tiny_run(struct model_vm *vm, int nr,
			    enum model_found *found)
{
	struct guest_access *list = tiny_list(vm);
	struct kvm_run *run = vm->run;
	int err, i = 0, stop;

	list[nr].gpa = 0;
	for (;;) {
		err = tiny_enter(vm, i);
		stop = (run->s.regs.regs.rsi - LIST_GPA) / sizeof(*list);
		if (stop < i || stop > nr)
			fail("the guest is at access %d of %d (%s, exit %d)",
			     stop, nr, errno_name(err), run->exit_reason);
		while (i < stop)
			found[i++] = FOUND;

		if (err == EFAULT && run->exit_reason == KVM_EXIT_MEMORY_FAULT &&
		    i < nr) {
			tiny_check_fault(vm, (list[i].gpa - WINDOW) / unit);
			found[i++] = FAULT;
		} else if (!err && run->exit_reason == KVM_EXIT_MMIO && i < nr &&
			   run->mmio.phys_addr == list[i].gpa) {
			tiny_complete_mmio(vm);
			found[i++] = NOTHING;
		} else {
			break;
		}
	}

	if (err || run->exit_reason != KVM_EXIT_HLT || i < nr)
		fail("KVM_RUN: %s, exit %s, at access %d of %d",
		     errno_name(err), exit_reason_str(run->exit_reason), i, nr);
}

#endif /* SELFTEST_KVM_GMEM_FUZZ_VM_H */
