// SPDX-License-Identifier: GPL-2.0
/*
 * The story of one guest with private memory, told step by step:
 *
 *	private_guest [MiB]
 *
 * The guest (guest.c) fills private memory and verifies it. This program, its
 * VMM, tries to read that memory and must fail, gets a message through a page
 * that the guest shares, and closes the guest_memfd while the guest uses it.
 * How a VMM does its part is in vmm.c. Exit status 0: all was proven.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "story.h"

#define STEPS		7

/* To say what a step cost: taken at its start, compared at its end. */
struct meter {
	__u64 time;
	__u64 page_faults;
	__u64 unevictable;
};

static void meter_start(struct meter *meter, const struct vmm *vmm)
{
	meter->time = now_ns();
	meter->page_faults = vmm_read_stat(vmm, "pf_taken");
	meter->unevictable = read_unevictable();
}

static void print_meter(const struct meter *meter, const struct vmm *vmm)
{
	printf("      %llu page faults, %.2f s\n",
	       vmm_read_stat(vmm, "pf_taken") - meter->page_faults,
	       (now_ns() - meter->time) / 1e9);
}

/*
 * KVM_CREATE_VM, KVM_CREATE_GUEST_MEMFD, KVM_SET_USER_MEMORY_REGION2 and
 * KVM_CREATE_VCPU. All memory is shared at first.
 */
static struct guest_params *create_guest(struct vmm *vmm, __u64 data_size)
{
	__u64 size = GUEST_MEMORY_SIZE(data_size);

	step("Create a software-protected VM");
	vmm_create_vm(vmm);
	vmm_add_memory(vmm, size, vmm_create_gmem(vmm, size),
		       vmm_create_shared(size));
	printf("      memory: private half in a guest_memfd, shared half in a memfd\n"
	       "      the guest's code, stack and page tables are loaded into the shared half\n");
	return boot_guest(vmm, GUEST_TALKS, GUEST_DATA, data_size);
}

/*
 * The guest asks for private memory by KVM_HC_MAP_GPA_RANGE, vmm_run() obeys
 * with KVM_SET_MEMORY_ATTRIBUTES. KVM allocates each page in the guest_memfd
 * when the guest first touches it: one page fault each.
 */
static void fill_private_memory(struct vmm *vmm,
				const struct guest_params *params)
{
	struct meter meter;

	step("The guest makes its data private, fills it and verifies it");
	meter_start(&meter, vmm);
	run_until(vmm, params, GUEST_VERIFIED);
	print_meter(&meter, vmm);
	check_memory_is_used(meter.unevictable, params->data_size);
	check_checksum(params, params->data_size);
}

/* The attempt must have failed; @result is that of the system call. */
static void check_refused(const char *what, long result)
{
	if (result >= 0)
		errx(1, "NOT proven: %s of the guest_memfd works", what);
	printf("      %-18s of the guest_memfd: refused, %s\n", what,
	       strerror(errno));
}

/* The file has no read or mmap: it is good for memory slots only. */
static void try_file(const struct vmm *vmm, __u64 data_size)
{
	void *map = mmap(NULL, data_size, PROT_READ, MAP_SHARED, vmm->gmem,
			 GUEST_DATA);
	char buf[64];

	check_refused("mmap()", map == MAP_FAILED ? -1 : 0);
	check_refused("read()", read(vmm->gmem, buf, sizeof(buf)));
	check_refused("pread()",
		      pread(vmm->gmem, buf, sizeof(buf), GUEST_DATA));
}

static bool all_zero(const char *data, size_t size)
{
	return !data[0] && !memcmp(data, data + 1, size - 1);
}

/*
 * What is mapped at the slot's userspace_addr is the shared half. The guest's
 * data is in the other one, so there is nothing to see.
 */
static void try_own_mapping(const struct vmm *vmm, __u64 data_size)
{
	if (!all_zero(vmm->shared + GUEST_DATA, data_size + GUEST_PAGE_SIZE))
		errx(1, "NOT proven: the host sees data in the guest's private memory");
	printf("      %-18s of the slot's %llu MiB: only zeroes\n", "plain reads",
	       data_size / MIB);
}

/* A debugger's way in leads to the same place. */
static void try_process_vm_readv(const struct vmm *vmm, __u64 data_size)
{
	char *buf = malloc(MIB);
	struct iovec to = { buf, MIB };
	__u64 done;

	if (!buf)
		err(1, "no memory for a buffer of 1 MiB");
	for (done = 0; done < data_size; done += MIB) {
		struct iovec from = { vmm->shared + GUEST_DATA + done, MIB };

		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != MIB)
			err(1, "process_vm_readv");
		if (!all_zero(buf, MIB))
			errx(1, "NOT proven: process_vm_readv() sees the private memory");
	}
	printf("      %-18s of the slot's %llu MiB: only zeroes\n",
	       "process_vm_readv()", data_size / MIB);
	free(buf);
}

static void try_to_read_private_memory(const struct vmm *vmm, __u64 data_size)
{
	step("The host tries to read the private memory");
	try_file(vmm, data_size);
	try_own_mapping(vmm, data_size);
	try_process_vm_readv(vmm, data_size);
}

/*
 * The same plain read as before, of a page that is shared now: the other half
 * is in place, so the page starts empty.
 */
static void read_message(struct vmm *vmm, const struct guest_params *params)
{
	const char *mailbox = vmm->shared + GUEST_DATA + params->data_size;

	step("The guest shares one page and leaves a message in it");
	run_until(vmm, params, GUEST_MAILBOX_SHARED);
	if (!all_zero(mailbox, GUEST_PAGE_SIZE))
		errx(1, "NOT proven: sharing a page shows what it held before");
	printf("      just shared, the page reads as zeroes: its old contents are gone\n");

	run_until(vmm, params, GUEST_MAILBOX_WRITTEN);
	if (strncmp(mailbox, GUEST_MESSAGE, GUEST_PAGE_SIZE))
		errx(1, "NOT proven: the host cannot read the shared page");
	printf("      the host reads: \"%s\"\n", mailbox);
}

/* Wait until the guest is in the middle of its data, then close the fd. */
static void *close_while_running(void *arg)
{
	struct vmm *vmm = arg;
	struct guest_params *params = vmm->shared + GUEST_PARAMS;
	__u64 progress;

	do {
		usleep(100);
		progress = __atomic_load_n(&params->progress, __ATOMIC_RELAXED);
	} while (progress < params->data_size / 4);

	printf("      closed %llu MiB into the guest's passes over its %llu MiB\n",
	       progress / MIB, params->data_size / MIB);
	vmm_close_gmem(vmm);
	ask_for_last_pass(params);
	return NULL;
}

/*
 * The memory slot holds on to the guest_memfd, so closing the fd takes nothing
 * from the guest: its pages stay mapped, and it takes no page fault.
 */
static void close_gmem(struct vmm *vmm, struct guest_params *params)
{
	struct meter meter;
	pthread_t thread;

	step("The host closes the guest_memfd while the guest verifies its data");
	meter_start(&meter, vmm);
	params->progress = 0;
	errno = pthread_create(&thread, NULL, close_while_running, vmm);
	if (errno)
		err(1, "pthread_create");
	run_until(vmm, params, GUEST_DONE);
	pthread_join(thread, NULL);

	printf("      the guest went on: %llu passes, the last began after the close\n",
	       params->passes);
	print_meter(&meter, vmm);
}

/* The slot goes with the VM, and the memory with the slot. */
static void destroy_guest(struct vmm *vmm, __u64 data_size)
{
	__u64 before = read_unevictable(), after;

	step("Destroy the VM");
	vmm_destroy(vmm);
	after = read_unevictable();
	if (after + data_size > before + MIB)
		errx(1, "NOT proven: the private memory was not given back");
	printf("      Unevictable in /proc/meminfo shrank by %llu MiB\n",
	       (before - after + MIB / 2) / MIB);
}

int main(int argc, char **argv)
{
	__u64 data_size = argc == 2 ? parse_data_size(argv[1]) :
				      DEFAULT_MIB * MIB;
	struct guest_params *params;
	struct vmm vmm;

	if (argc > 2 || !data_size)
		errx(2, "usage: private_guest [MiB of private memory, %d to %d; default %d]",
		     MIN_MIB, MAX_MIB, DEFAULT_MIB);
	story_begin(1, STEPS);
	params = create_guest(&vmm, data_size);
	fill_private_memory(&vmm, params);
	try_to_read_private_memory(&vmm, data_size);
	read_message(&vmm, params);
	close_gmem(&vmm, params);
	step("The guest's data is what it was");
	check_checksum(params, data_size);
	destroy_guest(&vmm, data_size);
	printf("Proven: the host could not read the guest's %llu MiB, only the page it shared;\n"
	       "        the guest kept its memory when the host closed the guest_memfd.\n",
	       data_size / MIB);
	return 0;
}
