/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests of host mappings: VMs of the default type whose test
 * memory is a guest_memfd that the host maps, and host accesses that may end in
 * a signal.
 */
#ifndef SELFTEST_KVM_GMEM_MMAP_UTIL_H
#define SELFTEST_KVM_GMEM_MMAP_UTIL_H

#include <setjmp.h>
#include <sys/mman.h>

#include "gmem_link_util.h"

/* Older C libraries do not have it. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define GMEM_MMAP	 GUEST_MEMFD_FLAG_MMAP
#define GMEM_INIT_SHARED GUEST_MEMFD_FLAG_INIT_SHARED
#define GMEM_BOTH	 (GMEM_MMAP | GMEM_INIT_SHARED)

static inline bool gmem_has_sw_protected(void)
{
	return kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM);
}

static inline void *gmem_map_prot(int fd, size_t size, int prot)
{
	void *mem = mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	TEST_ASSERT(mem != MAP_FAILED, "mmap() of a guest_memfd failed");
	return mem;
}

static inline void *gmem_map(int fd, size_t size)
{
	return gmem_map_prot(fd, size, PROT_READ | PROT_WRITE);
}

/* All of the memory is in a new file, that the host maps, too. */
static inline void gmem_plain_create(struct gmem_vm *g, size_t size)
{
	gmem_vm_create_type(g, size, VM_TYPE_DEFAULT);
	g->fd = vm_create_guest_memfd(g->vm, size, GMEM_BOTH);
	g->shared = gmem_map(g->fd, size);
	gmem_vm_bind(g);
}

/* The same with a link of @fd; the host maps it with what rights there are. */
static inline void gmem_plain_create_linked(struct gmem_vm *g, size_t size,
					    int fd, uint64_t flags)
{
	bool readonly = flags & KVM_LINK_GUEST_MEMFD_READONLY;

	gmem_vm_create_type(g, size, VM_TYPE_DEFAULT);
	g->fd = gmem_link(g->vm, fd, flags);
	g->shared = gmem_map_prot(g->fd, size,
				  readonly ? PROT_READ : PROT_READ | PROT_WRITE);
	gmem_vm_bind(g);
}

/*
 * All that the VM has is in the file, from its code on.  What the library put
 * into the first memory slot moves over, and is at the same addresses afterwards.
 * There is nothing at GMEM_GPA.
 */
static inline void gmem_plain_create_whole(struct gmem_vm *g, size_t size)
{
	struct userspace_mem_region *region;
	size_t total;
	void *mem;

	gmem_vm_create_type(g, size, VM_TYPE_DEFAULT);
	region = memslot2region(g->vm, 0);
	total = region->region.memory_size;

	g->fd = vm_create_guest_memfd(g->vm, total, GMEM_BOTH);
	mem = gmem_map(g->fd, total);
	memcpy(mem, region->host_mem, total);
	TEST_ASSERT(mremap(mem, total, total, MREMAP_MAYMOVE | MREMAP_FIXED,
			   region->host_mem) == region->host_mem,
		    "mremap() failed");

	gmem_delete_slot(g->vm, 0);
	gmem_set_slot(g->vm, 0, KVM_MEM_GUEST_MEMFD,
		      region->region.guest_phys_addr, total, region->host_mem,
		      g->fd, 0);
}

/* The last exit must be a fault, of a VM without private memory, at @offset. */
static inline void gmem_expect_plain_fault(struct gmem_vm *g, uint64_t offset)
{
	struct kvm_run *run = g->vcpu->run;

	TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_MEMORY_FAULT);
	TEST_ASSERT_EQ(run->memory_fault.flags, 0);
	TEST_ASSERT_EQ(run->memory_fault.gpa,
		       GMEM_GPA + align_down(offset, PAGE_SIZE));
	TEST_ASSERT_EQ(run->memory_fault.size, PAGE_SIZE);
}

/*
 * Host accesses
 */

static __thread sigjmp_buf gmem_trap;
static __thread bool gmem_trap_armed;
static __thread siginfo_t gmem_trap_info;

static inline void gmem_trap_handler(int sig, siginfo_t *info, void *context)
{
	/* One that nobody waits for comes again, and kills. */
	if (!READ_ONCE(gmem_trap_armed)) {
		signal(sig, SIG_DFL);
		return;
	}
	WRITE_ONCE(gmem_trap_armed, false);
	gmem_trap_info = *info;
	siglongjmp(gmem_trap, sig);
}

static inline void gmem_trap_init(void)
{
	struct sigaction act = {
		.sa_sigaction = gmem_trap_handler,
		.sa_flags = SA_SIGINFO,
	};

	sigaction(SIGBUS, &act, NULL);
	sigaction(SIGSEGV, &act, NULL);
}

/* Each returns 0 or the signal, of which gmem_trap_info has the details. */

static noinline __maybe_unused int gmem_try_read(void *addr, uint64_t *val)
{
	int sig = sigsetjmp(gmem_trap, 1);

	if (sig)
		return sig;
	WRITE_ONCE(gmem_trap_armed, true);
	*val = READ_ONCE(*(uint64_t *)addr);
	WRITE_ONCE(gmem_trap_armed, false);
	return 0;
}

static noinline __maybe_unused int gmem_try_write(void *addr, uint64_t val)
{
	int sig = sigsetjmp(gmem_trap, 1);

	if (sig)
		return sig;
	WRITE_ONCE(gmem_trap_armed, true);
	WRITE_ONCE(*(uint64_t *)addr, val);
	WRITE_ONCE(gmem_trap_armed, false);
	return 0;
}

static noinline __maybe_unused int gmem_try_madvise(void *addr, size_t size,
						    int advice)
{
	int sig = sigsetjmp(gmem_trap, 1);

	if (sig)
		return sig;
	WRITE_ONCE(gmem_trap_armed, true);
	errno = 0;
	madvise(addr, size, advice);
	WRITE_ONCE(gmem_trap_armed, false);
	return 0;
}

static inline void gmem_host_fill(void *mem, size_t size, uint64_t val)
{
	uint64_t *p = mem, *end = mem + size;

	for (; p < end; p++)
		WRITE_ONCE(*p, val);
}

/* The host must see @val in every word of the range. */
static inline void gmem_host_expect(void *mem, size_t size, uint64_t val)
{
	uint64_t *p = mem, *end = mem + size, word;

	for (; p < end; p++) {
		word = READ_ONCE(*p);
		TEST_ASSERT(word == val,
			    "host sees 0x%lx instead of 0x%lx at offset 0x%lx",
			    word, val, (void *)p - mem);
	}
}

/* Neither reading nor writing works at @addr. */
static inline void gmem_expect_sigbus(void *addr, int code)
{
	uint64_t val;

	TEST_ASSERT_EQ(gmem_try_read(addr, &val), SIGBUS);
	TEST_ASSERT_EQ(gmem_trap_info.si_code, code);
	TEST_ASSERT_EQ((uintptr_t)gmem_trap_info.si_addr, (uintptr_t)addr);
	TEST_ASSERT_EQ(gmem_try_write(addr, 0xbad), SIGBUS);
	TEST_ASSERT_EQ(gmem_trap_info.si_code, code);
}

/*
 * Skip the program where memory cannot be mapped.  Keep a VM for as long as it
 * runs: see gmem_require_sw_protected().
 */
static inline void gmem_require_mmap(void)
{
	TEST_REQUIRE((kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS) & GMEM_BOTH) ==
		     GMEM_BOTH);
	vm_create_barebones();
	gmem_trap_init();
}

#endif /* SELFTEST_KVM_GMEM_MMAP_UTIL_H */
