// SPDX-License-Identifier: GPL-2.0
/*
 * The VMM's side of private memory, ioctl by ioctl.
 *
 * Guest memory has two halves for every page: a private one in a guest_memfd,
 * that no process can map or read, and a shared one in ordinary memory of this
 * process. The page's attribute says which of them the guest sees. The guest
 * asks for a change, the VMM makes it and discards the half left behind.
 */
#define _GNU_SOURCE
#include <asm/processor-flags.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
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

/* What must be there. */
static const struct {
	const char *name;
	int number;
	int bits;
} capabilities[] = {
	{ "KVM_CAP_GUEST_MEMFD", KVM_CAP_GUEST_MEMFD, 1 },
	{ "KVM_CAP_USER_MEMORY2", KVM_CAP_USER_MEMORY2, 1 },
	{ "KVM_CAP_MEMORY_ATTRIBUTES: private", KVM_CAP_MEMORY_ATTRIBUTES,
	  KVM_MEMORY_ATTRIBUTE_PRIVATE },
	{ "KVM_CAP_VM_TYPES: software-protected", KVM_CAP_VM_TYPES,
	  1 << KVM_X86_SW_PROTECTED_VM },
	{ "KVM_CAP_EXIT_HYPERCALL: KVM_HC_MAP_GPA_RANGE",
	  KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE },
};

static void check_capabilities(int kvm)
{
	size_t i;

	for (i = 0; i < sizeof(capabilities) / sizeof(*capabilities); i++) {
		int have = ioctl(kvm, KVM_CHECK_EXTENSION,
				 capabilities[i].number);

		if (have < 0 || !(have & capabilities[i].bits))
			errx(1, "KVM does not have %s.\n"
			     "Load modules built with CONFIG_KVM_SW_PROTECTED_VM, on a CPU with nested paging.",
			     capabilities[i].name);
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
 * A software-protected VM has private memory without special hardware. It is
 * for development: the same steps, but the host's kernel could still peek.
 */
void vmm_create_vm(struct vmm *vmm)
{
	vmm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm->kvm < 0)
		err(1, "load kvm-amd or kvm-intel, and run as root or in the group kvm: /dev/kvm");
	check_capabilities(vmm->kvm);

	vmm->vm = ioctl(vmm->kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	if (vmm->vm < 0)
		err(1, "KVM_CREATE_VM");
	enable_conversion_exits(vmm->vm);
}

/*
 * Both halves start empty and cost nothing until they are touched.
 * MAP_NORESERVE because few pages ever have their shared half in use.
 */
static void create_halves(struct vmm *vmm)
{
	struct kvm_create_guest_memfd args = { .size = vmm->size };

	vmm->gmem = ioctl(vmm->vm, KVM_CREATE_GUEST_MEMFD, &args);
	if (vmm->gmem < 0)
		err(1, "KVM_CREATE_GUEST_MEMFD of %llu bytes", vmm->size);

	vmm->shared = mmap(NULL, vmm->size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vmm->shared == MAP_FAILED)
		err(1, "mmap of %llu bytes of shared memory", vmm->size);
}

/*
 * One memslot joins the halves: page N of the slot is page N of each. All pages
 * are shared at first, which is how the VMM can load the guest.
 */
void vmm_add_memory(struct vmm *vmm, __u64 size)
{
	struct kvm_userspace_memory_region2 slot = {
		.flags = KVM_MEM_GUEST_MEMFD,
		.memory_size = size,
	};

	vmm->size = size;
	create_halves(vmm);
	slot.userspace_addr = (unsigned long)vmm->shared;
	slot.guest_memfd = vmm->gmem;
	if (ioctl(vmm->vm, KVM_SET_USER_MEMORY_REGION2, &slot))
		err(1, "KVM_SET_USER_MEMORY_REGION2");

	vmm->is_private = calloc(size / GUEST_PAGE_SIZE, sizeof(bool));
	if (!vmm->is_private)
		err(1, "no memory for the map of private pages");
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
	sregs.cr4 = X86_CR4_PAE;
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

void vmm_add_vcpu(struct vmm *vmm, __u64 entry, __u64 stack, __u64 arg)
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

	build_page_tables(vmm);
	set_cpuid(vmm);
	set_long_mode(vmm);
	set_entry(vmm, entry, stack, arg);
}

/* Free the half that the guest no longer sees, so that it costs nothing. */
static void discard_half(struct vmm *vmm, __u64 gpa, __u64 size, bool private)
{
	if (private) {
		if (fallocate(vmm->gmem,
			      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      gpa, size))
			err(1, "cannot punch a hole into the guest_memfd");
	} else {
		if (madvise(vmm->shared + gpa, size, MADV_DONTNEED))
			err(1, "cannot discard shared memory");
	}
}

/*
 * The guest is not trusted: it may ask for a range that it does not have. First
 * the attribute, so that the guest cannot reach the old half, then its memory.
 */
static bool convert(struct vmm *vmm, __u64 gpa, __u64 size, bool private)
{
	struct kvm_memory_attributes attributes = {
		.address = gpa,
		.size = size,
		.attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
	};

	if (gpa > vmm->size || size > vmm->size - gpa)
		return false;
	if (ioctl(vmm->vm, KVM_SET_MEMORY_ATTRIBUTES, &attributes))
		err(1, "KVM_SET_MEMORY_ATTRIBUTES");
	memset(vmm->is_private + gpa / GUEST_PAGE_SIZE, private,
	       size / GUEST_PAGE_SIZE);
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

	if (gpa >= vmm->size ||
	    vmm->is_private[gpa / GUEST_PAGE_SIZE] == private)
		return false;
	return convert(vmm, gpa, vmm->run->memory_fault.size, private);
}

/* KVM_RUN reports a memory fault as an error, with the reason filled in. */
static void enter_guest(const struct vmm *vmm)
{
	while (ioctl(vmm->vcpu, KVM_RUN, NULL)) {
		if (errno == EFAULT &&
		    vmm->run->exit_reason == KVM_EXIT_MEMORY_FAULT)
			return;
		if (errno != EINTR)
			err(1, "KVM_RUN");
	}
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
		enter_guest(vmm);
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
	munmap(vmm->shared, vmm->size);
	free(vmm->is_private);
}
