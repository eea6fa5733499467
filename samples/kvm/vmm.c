// SPDX-License-Identifier: GPL-2.0
/*
 * The VMM's side of private memory, ioctl by ioctl.
 *
 * Guest memory has two halves for every page: a private one in a guest_memfd,
 * that no process can map or read, and a shared one in a memfd, which this
 * process maps. The page's attribute says which of them the guest sees. The
 * guest asks for a change, the VMM makes it and discards the half left behind.
 *
 * A plain VM is one without private memory. Its guest_memfd is memory like any
 * other, which this process maps, and there is nothing to convert.
 */
#define _GNU_SOURCE
#include <asm/processor-flags.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"
#include "vmm.h"

#define PTE_PRESENT	0x1
#define PTE_WRITE	0x2
#define PTE_LARGE	0x80		/* in a page directory: maps 2 MiB */

#define EFER_LME	0x100		/* long mode enabled, and active */
#define EFER_LMA	0x400

#define SEGMENT_CODE	11		/* execute, read, accessed */
#define SEGMENT_DATA	3		/* read, write, accessed */

#define MAX_CPUID	256

#define PLAIN_GMEM_FLAGS (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

struct capability {
	const char *name;
	int number;
	int bits;
};

/* What must be there for private memory. */
static const struct capability private_needs[] = {
	{ "KVM_CAP_GUEST_MEMFD", KVM_CAP_GUEST_MEMFD, 1 },
	{ "KVM_CAP_USER_MEMORY2", KVM_CAP_USER_MEMORY2, 1 },
	{ "KVM_CAP_MEMORY_ATTRIBUTES: private", KVM_CAP_MEMORY_ATTRIBUTES,
	  KVM_MEMORY_ATTRIBUTE_PRIVATE },
	{ "KVM_CAP_VM_TYPES: software-protected", KVM_CAP_VM_TYPES,
	  1 << KVM_X86_SW_PROTECTED_VM },
	{ "KVM_CAP_EXIT_HYPERCALL: KVM_HC_MAP_GPA_RANGE",
	  KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE },
	{ 0 }
};

/* What must be there for a guest_memfd that the host can map. */
static const struct capability plain_needs[] = {
	{ "KVM_CAP_GUEST_MEMFD", KVM_CAP_GUEST_MEMFD, 1 },
	{ "KVM_CAP_USER_MEMORY2", KVM_CAP_USER_MEMORY2, 1 },
	{ "KVM_CAP_GUEST_MEMFD_FLAGS: mmap, shared from the start",
	  KVM_CAP_GUEST_MEMFD_FLAGS, PLAIN_GMEM_FLAGS },
	{ 0 }
};

static void check_capabilities(int kvm, const struct capability *needed)
{
	for (; needed->name; needed++) {
		int have = ioctl(kvm, KVM_CHECK_EXTENSION, needed->number);

		if (have < 0 || (have & needed->bits) != needed->bits)
			errx(1, "KVM does not have %s.\n"
			     "Load this project's modules; private memory also needs a CPU with nested paging.",
			     needed->name);
	}
}

/*
 * KVM_HC_MAP_GPA_RANGE is the guest's request for a conversion. KVM hands it
 * to the VMM, as KVM_EXIT_HYPERCALL, only when asked to.
 */
static void enable_conversion_exits(int vm)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EXIT_HYPERCALL,
		.args = { 1 << KVM_HC_MAP_GPA_RANGE },
	};

	if (ioctl(vm, KVM_ENABLE_CAP, &cap))
		err(1, "KVM_ENABLE_CAP(KVM_CAP_EXIT_HYPERCALL)");
}

/*
 * KVM emulates the interrupt controllers, as for most VMs: the vCPU's local one
 * is part of what moves to another VMM.
 */
static void create_vm(struct vmm *vmm, unsigned long type,
		      const struct capability *needed)
{
	vmm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm->kvm < 0)
		err(1, "load kvm-amd or kvm-intel, and run as root or in the group kvm: /dev/kvm");
	check_capabilities(vmm->kvm, needed);

	vmm->vm = ioctl(vmm->kvm, KVM_CREATE_VM, type);
	if (vmm->vm < 0)
		err(1, "KVM_CREATE_VM");
	if (ioctl(vmm->vm, KVM_CREATE_IRQCHIP, NULL))
		err(1, "KVM_CREATE_IRQCHIP");
}

/*
 * A software-protected VM has private memory without special hardware. It is
 * for development: the same steps, but the host's kernel could still peek.
 */
void vmm_create_vm(struct vmm *vmm)
{
	create_vm(vmm, KVM_X86_SW_PROTECTED_VM, private_needs);
	enable_conversion_exits(vmm->vm);
}

/* The type that every VMM uses for an ordinary guest. */
void vmm_create_plain_vm(struct vmm *vmm)
{
	create_vm(vmm, KVM_X86_DEFAULT_VM, plain_needs);
}

/* The ioctls that return a guest_memfd leave it open for a new program. */
static int close_on_exec(int gmem)
{
	if (fcntl(gmem, F_SETFD, FD_CLOEXEC))
		err(1, "cannot set close-on-exec for the guest_memfd");
	return gmem;
}

static int create_gmem(const struct vmm *vmm, __u64 size, __u64 flags)
{
	struct kvm_create_guest_memfd args = { .size = size, .flags = flags };
	int gmem = ioctl(vmm->vm, KVM_CREATE_GUEST_MEMFD, &args);

	if (gmem < 0)
		err(1, "KVM_CREATE_GUEST_MEMFD of %llu bytes", size);
	return close_on_exec(gmem);
}

/* Either half starts empty and costs nothing until the guest touches it. */
int vmm_create_gmem(const struct vmm *vmm, __u64 size)
{
	return create_gmem(vmm, size, 0);
}

/* MMAP: this process can map it. INIT_SHARED: and touch what it has mapped. */
int vmm_create_plain_gmem(const struct vmm *vmm, __u64 size)
{
	return create_gmem(vmm, size, PLAIN_GMEM_FLAGS);
}

/* The memory stays where it is. The result is this VM's own view of it. */
int vmm_link_gmem(const struct vmm *vmm, int gmem, __u64 flags)
{
	struct kvm_link_guest_memfd args = { .fd = gmem, .flags = flags };
	int linked = ioctl(vmm->vm, KVM_LINK_GUEST_MEMFD, &args);

	if (linked < 0 && errno == ENOTTY)
		errx(1, "this KVM has no KVM_LINK_GUEST_MEMFD: load this project's modules");
	if (linked < 0)
		err(1, "KVM_LINK_GUEST_MEMFD");
	return close_on_exec(linked);
}

/* Of the map of private pages, which goes where the memory goes. */
static __u64 map_size(__u64 size)
{
	return size / GUEST_PAGE_SIZE * sizeof(bool);
}

/* A file, so that it can be handed over. The VMM's map lies behind it. */
int vmm_create_shared(__u64 size)
{
	int shared = memfd_create("shared guest memory", MFD_CLOEXEC);

	if (shared < 0)
		err(1, "memfd_create");
	if (ftruncate(shared, size + map_size(size)))
		err(1, "cannot size the shared memory to %llu bytes", size);
	return shared;
}

static void *map_memory(int fd, __u64 size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			    0);

	if (memory == MAP_FAILED)
		err(1, "mmap of %llu bytes of guest memory", size);
	return memory;
}

static void set_memslot(const struct vmm *vmm,
			const struct kvm_userspace_memory_region2 *slot)
{
	if (ioctl(vmm->vm, KVM_SET_USER_MEMORY_REGION2, slot))
		err(1, "KVM_SET_USER_MEMORY_REGION2");
}

static void add_memslot(const struct vmm *vmm)
{
	struct kvm_userspace_memory_region2 slot = {
		.flags = KVM_MEM_GUEST_MEMFD,
		.memory_size = vmm->size,
		.userspace_addr = (unsigned long)vmm->shared,
		.guest_memfd = vmm->gmem,
	};

	set_memslot(vmm, &slot);
}

/*
 * One memslot joins the halves: page N of the slot is page N of each. In new
 * memory all pages are shared, which is how the VMM can load the guest.
 */
void vmm_add_memory(struct vmm *vmm, __u64 size, int gmem, int shared)
{
	vmm->size = size;
	vmm->gmem = gmem;
	vmm->shared_fd = shared;
	vmm->shared = map_memory(shared, size + map_size(size));
	vmm->is_private = vmm->shared + size;
	add_memslot(vmm);
}

/*
 * The guest gets its pages from the guest_memfd. KVM itself uses the address,
 * for instance to read the guest's page tables: it must lead to the same pages.
 */
void vmm_add_plain_memory(struct vmm *vmm, __u64 size, int gmem)
{
	vmm->size = size;
	vmm->gmem = gmem;
	vmm->shared_fd = -1;
	vmm->shared = map_memory(gmem, size);
	vmm->is_private = NULL;
	add_memslot(vmm);
}

static void set_attributes(const struct vmm *vmm, __u64 gpa, __u64 size,
			   bool private)
{
	struct kvm_memory_attributes attributes = {
		.address = gpa,
		.size = size,
		.attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
	};

	if (ioctl(vmm->vm, KVM_SET_MEMORY_ATTRIBUTES, &attributes))
		err(1, "KVM_SET_MEMORY_ATTRIBUTES");
}

static void set_private(struct vmm *vmm, __u64 gpa, __u64 size, bool private)
{
	set_attributes(vmm, gpa, size, private);
	memset(vmm->is_private + gpa / GUEST_PAGE_SIZE, private,
	       size / GUEST_PAGE_SIZE);
}

/* Attributes belong to a VM. A new one does not know what was private. */
void vmm_mark_private(struct vmm *vmm, __u64 gpa, __u64 size)
{
	set_private(vmm, gpa, size, true);
}

/*
 * Both VMs have the same memory slots, and nobody runs a vCPU of either. KVM
 * hands over the memory with its attributes: the source can do nothing from now
 * on, the views that this VM has linked become active. Or it changes nothing.
 */
void vmm_move_from(const struct vmm *vmm, int source)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM,
		.args = { source },
	};

	if (ioctl(vmm->vm, KVM_ENABLE_CAP, &cap))
		err(1, "KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM");
}

/*
 * All of the window is private, for good. So its memslot's shared half is never
 * used: KVM takes any address for it.
 */
void vmm_add_window(const struct vmm *vmm, __u64 gpa, __u64 size, int gmem,
		    __u64 offset)
{
	struct kvm_userspace_memory_region2 slot = {
		.slot = 1,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.guest_memfd = gmem,
		.guest_memfd_offset = offset,
	};

	set_memslot(vmm, &slot);
	set_attributes(vmm, gpa, size, true);
}

/* No ioctl is needed to load shared memory: it is this process's own. */
void vmm_load(struct vmm *vmm, __u64 gpa, const void *data, size_t size)
{
	if (gpa > vmm->size || size > vmm->size - gpa)
		errx(1, "%zu bytes at 0x%llx do not fit the guest's memory",
		     size, gpa);
	memcpy(vmm->shared + gpa, data, size);
}

/* Map the first 4 GiB one to one: a root, one upper table, four directories. */
static void build_page_tables(struct vmm *vmm)
{
	__u64 *root = vmm->shared + GUEST_PAGE_TABLES;
	__u64 *upper = root + 512, *directories = root + 1024, i;
	__u64 flags = PTE_PRESENT | PTE_WRITE;

	root[0] = (GUEST_PAGE_TABLES + GUEST_PAGE_SIZE) | flags;
	for (i = 0; i < 4; i++)
		upper[i] = (GUEST_PAGE_TABLES + (2 + i) * GUEST_PAGE_SIZE) |
			   flags;
	for (i = 0; i < 4 * 512; i++)
		directories[i] = (i << 21) | flags | PTE_LARGE;
}

/* KVM_SET_CPUID2: the guest sees the CPU that KVM can give it. */
static void set_cpuid(const struct vmm *vmm)
{
	struct kvm_cpuid2 *cpuid;

	cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(*cpuid->entries));
	if (!cpuid)
		err(1, "no memory for CPUID");
	cpuid->nent = MAX_CPUID;
	if (ioctl(vmm->kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
		err(1, "KVM_GET_SUPPORTED_CPUID");
	if (ioctl(vmm->vcpu, KVM_SET_CPUID2, cpuid))
		err(1, "KVM_SET_CPUID2");
	free(cpuid);
}

/* KVM_SET_SREGS: begin in 64-bit mode, with flat segments. */
static void set_long_mode(const struct vmm *vmm)
{
	struct kvm_segment code = {
		.selector = 8, .limit = ~0U, .type = SEGMENT_CODE,
		.present = 1, .s = 1, .l = 1, .g = 1,
	};
	struct kvm_segment data = {
		.selector = 16, .limit = ~0U, .type = SEGMENT_DATA,
		.present = 1, .s = 1, .db = 1, .g = 1,
	};
	struct kvm_sregs sregs;

	if (ioctl(vmm->vcpu, KVM_GET_SREGS, &sregs))
		err(1, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.ss = data;
	sregs.cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE | X86_CR0_PG;
	sregs.cr3 = GUEST_PAGE_TABLES;
	sregs.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(vmm->vcpu, KVM_SET_SREGS, &sregs))
		err(1, "KVM_SET_SREGS");
}

/* KVM_SET_REGS: begin as a C function does, with its argument in rdi. */
static void set_entry(const struct vmm *vmm, __u64 entry, __u64 stack,
		      __u64 arg)
{
	struct kvm_regs regs = {
		.rip = entry,
		.rsp = stack - sizeof(__u64),
		.rdi = arg,
		.rflags = X86_EFLAGS_FIXED,
	};

	if (ioctl(vmm->vcpu, KVM_SET_REGS, &regs))
		err(1, "KVM_SET_REGS");
}

void vmm_add_vcpu(struct vmm *vmm)
{
	int size;

	vmm->vcpu = ioctl(vmm->vm, KVM_CREATE_VCPU, 0);
	if (vmm->vcpu < 0)
		err(1, "KVM_CREATE_VCPU");

	size = ioctl(vmm->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (size < 0)
		err(1, "KVM_GET_VCPU_MMAP_SIZE");
	vmm->run_size = size;
	vmm->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			vmm->vcpu, 0);
	if (vmm->run == MAP_FAILED)
		err(1, "mmap of the vCPU's struct kvm_run");
}

void vmm_boot(struct vmm *vmm, __u64 entry, __u64 stack, __u64 arg)
{
	build_page_tables(vmm);
	set_cpuid(vmm);
	set_long_mode(vmm);
	set_entry(vmm, entry, stack, arg);
}

/* Free the half that the guest no longer sees, so that it costs nothing. */
static void discard_half(struct vmm *vmm, __u64 gpa, __u64 size, bool private)
{
	if (fallocate(private ? vmm->gmem : vmm->shared_fd,
		      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, gpa, size))
		err(1, "cannot punch a hole into the %s memory",
		    private ? "private" : "shared");
}

/*
 * The guest is not trusted: it may ask for a range that it does not have. First
 * the attribute, so that the guest cannot reach the old half, then its memory.
 */
static bool convert(struct vmm *vmm, __u64 gpa, __u64 size, bool private)
{
	if (gpa > vmm->size || size > vmm->size - gpa)
		return false;
	set_private(vmm, gpa, size, private);
	discard_half(vmm, gpa, size, !private);
	return true;
}

/* KVM_EXIT_HYPERCALL: the guest asks for a conversion, politely. */
static void serve_hypercall(struct vmm *vmm)
{
	__u64 gpa = vmm->run->hypercall.args[0];
	__u64 pages = vmm->run->hypercall.args[1];
	__u64 attributes = vmm->run->hypercall.args[2];
	bool done = pages <= vmm->size / GUEST_PAGE_SIZE &&
		    convert(vmm, gpa, pages * GUEST_PAGE_SIZE,
			    attributes & KVM_MAP_GPA_RANGE_ENCRYPTED);

	vmm->run->hypercall.ret = done ? 0 : -KVM_EINVAL;
}

/*
 * KVM_EXIT_MEMORY_FAULT: KVM could not map a page. Hardware-protected guests
 * ask for a conversion in this way too, by touching the half that they are not
 * on. A fault on the half that the page is on means that there is no memory.
 */
static bool serve_memory_fault(struct vmm *vmm)
{
	bool private = vmm->run->memory_fault.flags &
		       KVM_MEMORY_EXIT_FLAG_PRIVATE;
	__u64 gpa = vmm->run->memory_fault.gpa;

	if (gpa >= vmm->size || !vmm->is_private ||
	    vmm->is_private[gpa / GUEST_PAGE_SIZE] == private)
		return false;
	return convert(vmm, gpa, vmm->run->memory_fault.size, private);
}

/*
 * KVM_RUN reports a memory fault as an error, with the reason filled in. With
 * immediate_exit it first completes what the last exit left to be done, such as
 * to step over an I/O instruction. Only then are the registers worth saving.
 */
static bool enter_guest(const struct vmm *vmm)
{
	while (ioctl(vmm->vcpu, KVM_RUN, NULL)) {
		if (errno == EFAULT &&
		    vmm->run->exit_reason == KVM_EXIT_MEMORY_FAULT)
			return true;
		if (errno != EINTR)
			err(1, "KVM_RUN");
		if (vmm->run->immediate_exit)
			return false;
	}
	return true;
}

static int guest_event(const struct kvm_run *run)
{
	const __u32 *event = (const void *)run + run->io.data_offset;

	if (run->io.port != GUEST_PORT || run->io.size != sizeof(*event) ||
	    run->io.direction != KVM_EXIT_IO_OUT)
		errx(1, "the guest used I/O port 0x%x, which is not there",
		     run->io.port);
	return *event;
}

int vmm_run(struct vmm *vmm)
{
	for (;;) {
		if (!enter_guest(vmm))
			return VMM_STOPPED;
		switch (vmm->run->exit_reason) {
		case KVM_EXIT_IO:
			return guest_event(vmm->run);
		case KVM_EXIT_HYPERCALL:
			serve_hypercall(vmm);
			break;
		case KVM_EXIT_MEMORY_FAULT:
			if (!serve_memory_fault(vmm))
				return VMM_MEMORY_LOST;
			break;
		case KVM_EXIT_SHUTDOWN:
			errx(1, "the guest took an exception, which guest.c does not handle");
		default:
			errx(1, "KVM exit reason %u: see KVM_EXIT_* in <linux/kvm.h>",
			     vmm->run->exit_reason);
		}
	}
}

static void wake(int signal)
{
	(void)signal;
}

/*
 * The signal makes a running KVM_RUN return with EINTR, immediate_exit one that
 * is about to begin.
 */
void vmm_stop(struct vmm *vmm, pthread_t runner)
{
	struct sigaction action = { .sa_handler = wake };

	if (sigaction(SIGUSR1, &action, NULL))
		err(1, "sigaction");
	__atomic_store_n(&vmm->run->immediate_exit, 1, __ATOMIC_RELAXED);
	errno = pthread_kill(runner, SIGUSR1);
	if (errno)
		err(1, "pthread_kill");
}

static void read_at(int fd, void *to, size_t size, off_t offset)
{
	if (pread(fd, to, size, offset) != (ssize_t)size)
		err(1, "cannot read the vCPU's statistics");
}

/*
 * KVM_GET_STATS_FD: a file that describes itself. Its header says where the
 * descriptors are, a descriptor gives the name and where the value is.
 */
__u64 vmm_read_stat(const struct vmm *vmm, const char *name)
{
	int fd = ioctl(vmm->vcpu, KVM_GET_STATS_FD, NULL);
	struct kvm_stats_header header;
	struct kvm_stats_desc *desc;
	size_t desc_size;
	__u64 value = 0;
	__u32 i;

	if (fd < 0)
		err(1, "KVM_GET_STATS_FD");
	read_at(fd, &header, sizeof(header), 0);
	desc_size = sizeof(*desc) + header.name_size;
	desc = malloc(desc_size);
	if (!desc)
		err(1, "no memory for statistics");

	for (i = 0; i < header.num_desc; i++) {
		read_at(fd, desc, desc_size,
			header.desc_offset + i * desc_size);
		if (strcmp(desc->name, name))
			continue;
		read_at(fd, &value, sizeof(value),
			header.data_offset + desc->offset);
		break;
	}
	if (i == header.num_desc)
		errx(1, "this KVM has no statistic %s", name);
	free(desc);
	close(fd);
	return value;
}

/* The memslot keeps the memory. But no page can be made shared from now on. */
void vmm_close_gmem(struct vmm *vmm)
{
	int gmem = vmm->gmem;

	vmm->gmem = -1;
	if (close(gmem))
		err(1, "cannot close the guest_memfd");
}

/* The VM goes with the last of its file descriptors and mappings. */
void vmm_destroy(struct vmm *vmm)
{
	munmap(vmm->run, vmm->run_size);
	close(vmm->vcpu);
	if (vmm->gmem >= 0)
		close(vmm->gmem);
	close(vmm->vm);
	close(vmm->kvm);
	if (vmm->is_private) {
		munmap(vmm->is_private, map_size(vmm->size));
		close(vmm->shared_fd);
	}
	munmap(vmm->shared, vmm->size);
}
